package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"tenement"
)

// defaultLimit is how many rows a list has when nobody says.
const defaultLimit = 1000

const (
	instanceColumns = "service, name, weight, suspended, created_at, crashes, retry_at, reason, uid, oom_kills, healthy_at"

	selectInstance = "SELECT " + instanceColumns + " FROM instances WHERE service = ? AND name = ?"
	insertInstance = "INSERT INTO instances (service, name, created_at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING"
	updateFailure  = "UPDATE instances SET crashes = ?, retry_at = ?, reason = ? WHERE service = ? AND name = ?"
)

// Register adds id, created now, with weight 0 and not suspended. If it is there
// already nothing changes, and created is false. It is CodeInvalid if id is not valid.
func (s *Store) Register(ctx context.Context, id tenement.InstanceID, now time.Time) (created bool, err error) {
	if err := check(id); err != nil {
		return false, err
	}
	result, err := s.stmts.register.ExecContext(ctx, id.Service, id.Name, nanos(now))
	if err != nil {
		return false, s.wrote(ctx, "register "+id.String(), err)
	}
	n, err := result.RowsAffected()
	if n > 0 {
		err = s.durable(err)
	}
	return n > 0, s.wrote(ctx, "register "+id.String(), err)
}

func check(id tenement.InstanceID) error {
	if err := tenement.CheckServiceName(id.Service); err != nil {
		return err
	}
	return tenement.CheckInstanceName(id.Name)
}

// Instance returns what is registered of id. It is CodeNotFound if nothing is.
// Every wake asks, and every request for an unknown host.
func (s *Store) Instance(ctx context.Context, id tenement.InstanceID) (tenement.Instance, error) {
	i, err := lookUp(ctx, s.stmts.instance, scanInstance, id.Service, id.Name)
	if err != nil {
		return tenement.Instance{}, failure("look up "+id.String(), err)
	}
	return i, nil
}

// Filter chooses instances.
type Filter struct {
	Service string                // "" = all
	Name    string                // "" = all
	Text    string                // anywhere in "service:name"; "" = all
	IDs     []tenement.InstanceID // nil = all
	// After is the last instance of the page before; only those that follow it in
	// the order of service and name are listed. Zero = from the first.
	After tenement.InstanceID
	Limit int // at most so many; 0 = 1,000

	// Resting leaves only rows that say asleep, suspended or failed, which is what an
	// instance is that has no owner. Empty = all; other states choose nothing.
	Resting []tenement.State
}

// restingIn is when a row says that its instance is in a state.
var restingIn = map[tenement.State]string{
	tenement.Asleep:    "suspended = 0 AND retry_at = 0",
	tenement.Suspended: "suspended <> 0",
	tenement.Failed:    "suspended = 0 AND retry_at > 0",
}

// Instances lists the registered instances that f chooses, ordered by service and
// then by name. A page costs the same wherever in the list it is.
func (s *Store) Instances(ctx context.Context, f Filter) ([]tenement.Instance, error) {
	query, args := f.query()
	rows, err := s.read.QueryContext(ctx, query, args...)
	if err != nil {
		return nil, failure("list instances", err)
	}
	list, err := collect(rows, scanInstance)
	return list, failure("list instances", err)
}

// Count is how many registered instances f chooses; its Limit is not looked at.
func (s *Store) Count(ctx context.Context, f Filter) (n int, err error) {
	condition, args := f.condition()
	err = s.read.QueryRowContext(ctx, "SELECT count(*) FROM instances WHERE "+condition, args...).Scan(&n)
	return n, failure("count instances", err)
}

// countResting counts entries of indexes only: a million rows take 14 ms.
var countResting = "SELECT (SELECT count(*) FROM instances)" +
	", (SELECT count(*) FROM instances WHERE " + restingIn[tenement.Suspended] + ")" +
	", (SELECT count(*) FROM instances WHERE " + restingIn[tenement.Failed] + ")"

// CountResting is how many registered instances rest in each state by their rows, which is
// where they are that have no owner.
func (s *Store) CountResting(ctx context.Context) (map[tenement.State]int, error) {
	var all, suspended, failed int
	err := s.read.QueryRowContext(ctx, countResting).Scan(&all, &suspended, &failed)
	return map[tenement.State]int{
		tenement.Asleep: all - suspended - failed, tenement.Suspended: suspended, tenement.Failed: failed,
	}, failure("count instances", err)
}

func (f Filter) query() (string, []any) {
	condition, args := f.condition()
	limit := f.Limit
	if limit <= 0 {
		limit = defaultLimit
	}
	return "SELECT " + instanceColumns + " FROM instances WHERE " + condition + " ORDER BY service, name LIMIT ?", append(args, limit)
}

// condition compares only the columns that are not fixed with those of After: SQLite
// does not see by itself that it could begin there.
func (f Filter) condition() (string, []any) {
	conditions, args := []string{"1"}, []any{}
	where := func(condition string, values ...any) {
		conditions, args = append(conditions, condition), append(args, values...)
	}
	if f.Service != "" {
		where("service = ?", f.Service)
	}
	if f.Name != "" {
		where("name = ?", f.Name)
	}
	if f.Text != "" {
		where("instr(service || ':' || name, ?) > 0", f.Text)
	}
	if f.IDs != nil {
		where("(service, name) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?))", pairs(f.IDs))
	}
	if len(f.Resting) > 0 {
		where(f.resting())
	}
	switch after := f.After; {
	case after.IsZero():
	case f.Service == "" && f.Name == "":
		where("(service, name) > (?, ?)", after.Service, after.Name)
	case f.Service == "" && f.Name > after.Name:
		where("service >= ?", after.Service)
	case f.Service == "":
		where("service > ?", after.Service)
	case f.Service == after.Service:
		where("name > ?", after.Name)
	case f.Service < after.Service:
		where("0")
	}
	return strings.Join(conditions, " AND "), args
}

// pairs writes ids as one value, however many they are: SQLite reads [service, name] of each.
func pairs(ids []tenement.InstanceID) string {
	list := make([][2]string, len(ids))
	for n, id := range ids {
		list[n] = [2]string{id.Service, id.Name}
	}
	text, err := json.Marshal(list)
	if err != nil {
		panic(err) // strings can be written
	}
	return string(text)
}

// resting is one condition for each state, so that an index that one alone has is used.
func (f Filter) resting() string {
	var choices []string
	for _, state := range f.Resting {
		if condition := restingIn[state]; condition != "" {
			choices = append(choices, condition)
		}
	}
	switch len(choices) {
	case 0:
		return "0"
	case 1:
		return choices[0]
	}
	return "(" + strings.Join(choices, " OR ") + ")"
}

// Delete removes id from the registry, with its weight, failure, alarms and wakes; a
// process that is known of it stays known, what it has used, and what is still to be told
// of it. It is CodeNotFound if id is not registered.
func (s *Store) Delete(ctx context.Context, id tenement.InstanceID) error {
	return s.wrote(ctx, "delete "+id.String(), s.durable(s.inTransaction(ctx, func(tx *sql.Tx) error {
		for _, table := range []string{"alarms", "alerted", "wakes"} {
			if _, err := tx.ExecContext(ctx, "DELETE FROM "+table+" WHERE service = ? AND name = ?", id.Service, id.Name); err != nil {
				return err
			}
		}
		return changedOne(tx.ExecContext(ctx, "DELETE FROM instances WHERE service = ? AND name = ?", id.Service, id.Name))
	})))
}

// SetSuspended says whether the operator switched id off. It is CodeNotFound if
// id is not registered.
func (s *Store) SetSuspended(ctx context.Context, id tenement.InstanceID, suspended bool) error {
	return s.wrote(ctx, "set suspended of "+id.String(), s.durable(changedOne(s.write.ExecContext(ctx,
		"UPDATE instances SET suspended = ? WHERE service = ? AND name = ?", suspended, id.Service, id.Name))))
}

// Weight is an instance's share of its service's own host.
type Weight struct {
	ID     tenement.InstanceID
	Weight int // 0 to 1000
}

// SetWeights changes all of weights or none. It is CodeInvalid if one is out of
// bounds, CodeNotFound if one of the instances is not registered.
func (s *Store) SetWeights(ctx context.Context, weights ...Weight) error {
	for _, w := range weights {
		if err := tenement.CheckWeight(w.Weight); err != nil {
			return err
		}
	}
	return s.wrote(ctx, "set weights", s.durable(s.inTransaction(ctx, func(tx *sql.Tx) error {
		for _, w := range weights {
			err := changedOne(tx.ExecContext(ctx,
				"UPDATE instances SET weight = ? WHERE service = ? AND name = ?", w.Weight, w.ID.Service, w.ID.Name))
			if err != nil {
				return failureIn(s.dir, "set weight of "+w.ID.String(), err)
			}
		}
		return nil
	})))
}

// Weights lists the instances that have a weight above 0, ordered by service and name.
func (s *Store) Weights(ctx context.Context) ([]Weight, error) {
	rows, err := s.read.QueryContext(ctx,
		"SELECT service, name, weight FROM instances WHERE weight > 0 ORDER BY service, name")
	if err != nil {
		return nil, failure("list weights", err)
	}
	list, err := collect(rows, func(r row) (w Weight, err error) {
		err = r.Scan(&w.ID.Service, &w.ID.Name, &w.Weight)
		return w, err
	})
	return list, failure("list weights", err)
}

// SetFailure remembers the crashes of id; the zero Failure forgets them. It is
// CodeNotFound if id is not registered.
func (s *Store) SetFailure(ctx context.Context, id tenement.InstanceID, f tenement.Failure) error {
	crashes, err := encodeTimes(f.Crashes)
	if err == nil {
		err = changedOne(s.stmts.setFailure.ExecContext(ctx, crashes, nanos(f.RetryAt), f.Reason, id.Service, id.Name))
	}
	return s.wrote(ctx, "remember failure of "+id.String(), err)
}

// CountOOMKill notes that id was ended once more because memory was short. It is
// CodeNotFound if id is not registered.
func (s *Store) CountOOMKill(ctx context.Context, id tenement.InstanceID) error {
	return s.wrote(ctx, "count an end of "+id.String(), changedOne(s.write.ExecContext(ctx,
		"UPDATE instances SET oom_kills = oom_kills + 1 WHERE service = ? AND name = ?", id.Service, id.Name)))
}

// SetHealthyAt notes when id was known to be well last. It is CodeNotFound if id is not
// registered.
func (s *Store) SetHealthyAt(ctx context.Context, id tenement.InstanceID, at time.Time) error {
	return s.wrote(ctx, "note the health of "+id.String(), changedOne(s.write.ExecContext(ctx,
		"UPDATE instances SET healthy_at = ? WHERE service = ? AND name = ?", nanos(at), id.Service, id.Name)))
}

func scanInstance(r row) (i tenement.Instance, err error) {
	var createdAt, retryAt, healthyAt int64
	var crashes string
	err = r.Scan(&i.ID.Service, &i.ID.Name, &i.Weight, &i.Suspended, &createdAt, &crashes, &retryAt, &i.Failure.Reason, &i.UID, &i.OOMKills, &healthyAt)
	if err != nil {
		return i, err
	}
	i.CreatedAt, i.Failure.RetryAt, i.HealthyAt = fromNanos(createdAt), fromNanos(retryAt), fromNanos(healthyAt)
	i.Failure.Crashes, err = decodeTimes(crashes)
	return i, err
}

// encodeTimes writes no times as "": nearly every instance has none.
func encodeTimes(times []time.Time) (string, error) {
	if len(times) == 0 {
		return "", nil
	}
	list := make([]int64, len(times))
	for i, t := range times {
		list[i] = nanos(t)
	}
	text, err := json.Marshal(list)
	return string(text), err
}

func decodeTimes(text string) ([]time.Time, error) {
	if text == "" {
		return nil, nil
	}
	var list []int64
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		return nil, fmt.Errorf("crashes: %w", err)
	}
	times := make([]time.Time, len(list))
	for i, n := range list {
		times[i] = fromNanos(n)
	}
	return times, nil
}
