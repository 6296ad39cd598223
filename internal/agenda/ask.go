package agenda

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tenement"
	"tenement/internal/api"
)

// What a process can ask of us, by HTTP at its own socket:
//
//	GET /                      what is set
//	POST /busy?for=10m         do not put me to sleep; 0 ends it
//	POST /alarm?at=+2h&name=x  wake me then
//	DELETE /alarm?name=x       or do not

// The bounds that keep a program from holding a connection, or us, up.
const (
	askTimeout   = 10 * time.Second
	maxAskHeader = 8 << 10
	maxAskBody   = 8 << 10
)

const (
	// maxAhead is how far ahead an alarm can be.
	maxAhead = 366 * 24 * time.Hour

	maxAlarmName = 64 // bytes

	// alarmName is that of an alarm that was given none.
	alarmName = "alarm"
)

// Heed answers what a process of id asks on connections of l, until l or the agenda is
// closed; nothing before Run. Whoever has l sees to it that nobody else connects.
func (a *Agenda) Heed(id tenement.InstanceID, l net.Listener) {
	_ = a.server.Serve(ofInstance{l, id}) // says that one of them was closed
}

// closeTime is what answers that are under way have when the agenda is closed.
const closeTime = time.Second

// Close ends the conversations that [Agenda.Heed] has begun.
func (a *Agenda) Close(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	if a.server.Shutdown(ctx) == nil {
		return nil
	}
	return a.server.Close()
}

// ofInstance is a listener at which only processes of one instance are heard.
type ofInstance struct {
	net.Listener
	id tenement.InstanceID
}

// Accept implements [net.Listener].
func (l ofInstance) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	return connOf{conn, l.id}, err
}

// connOf is a connection to a process of an instance.
type connOf struct {
	net.Conn
	id tenement.InstanceID
}

type instanceKey struct{}

func (a *Agenda) newServer() *http.Server {
	s := &http.Server{
		Handler:        a.asked(),
		ReadTimeout:    askTimeout,
		WriteTimeout:   2 * askTimeout,
		MaxHeaderBytes: maxAskHeader,
		ErrorLog:       slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug), // a tenant's mistakes are its own
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			of, _ := conn.(connOf)
			return context.WithValue(ctx, instanceKey{}, of.id)
		},
	}
	s.SetKeepAlivesEnabled(false) // a connection is one wish: their number is what is bounded
	return s
}

// wish answers one of the things that can be asked.
type wish func(ctx context.Context, id tenement.InstanceID, r *http.Request) error

func (a *Agenda) asked() http.Handler {
	mux := http.NewServeMux()
	for pattern, do := range map[string]wish{
		"GET /{$}":      func(context.Context, tenement.InstanceID, *http.Request) error { return nil },
		"POST /busy":    a.busy,
		"POST /alarm":   a.setAlarm,
		"DELETE /alarm": a.deleteAlarm,
	} {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) { a.answer(w, r, do) })
	}
	return mux
}

// answer does what was asked for and says what is set now, so that a program sees what came
// of it.
func (a *Agenda) answer(w http.ResponseWriter, r *http.Request, do wish) {
	id, _ := r.Context().Value(instanceKey{}).(tenement.InstanceID)
	ctx, cancel := context.WithTimeout(r.Context(), askTimeout)
	defer cancel()
	r.Body = http.MaxBytesReader(w, r.Body, maxAskBody) // a form, perhaps
	select {
	case <-a.running:
	case <-ctx.Done():
		api.Refuse(w, ctx.Err())
		return
	}
	err := do(ctx, id, r)
	var now state
	if err == nil {
		now, err = a.state(ctx, id)
	}
	if err != nil {
		api.Refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(now) // fails when nobody is there to hear it
}

// state is what is set for one instance.
type state struct {
	Instance  tenement.InstanceID `json:"instance"`
	BusyUntil time.Time           `json:"busy_until,omitzero"`
	Alarms    []alarmState        `json:"alarms"`
	Cron      []cronState         `json:"cron"`
}

type alarmState struct {
	Name string    `json:"name"`
	At   time.Time `json:"at"`
}

type cronState struct {
	Name     string    `json:"name"`
	Schedule string    `json:"schedule"`
	Path     string    `json:"path"`
	Next     time.Time `json:"next"`
}

func (a *Agenda) state(ctx context.Context, id tenement.InstanceID) (state, error) {
	now := state{Instance: id, BusyUntil: a.BusyUntil(id), Alarms: []alarmState{}, Cron: []cronState{}}
	list, err := a.Store.Alarms(ctx, id)
	for _, alarm := range list {
		now.Alarms = append(now.Alarms, alarmState{alarm.Name, alarm.At})
	}
	if err != nil {
		return now, err
	}
	lines, err := a.Lines(ctx, id)
	for _, c := range lines {
		now.Cron = append(now.Cron, cronState{c.Name, c.Schedule, c.Path, c.Times.Next(time.Now())})
	}
	return now, err
}

func (a *Agenda) busy(ctx context.Context, id tenement.InstanceID, r *http.Request) error {
	text := r.FormValue("for")
	d, ok := duration(text)
	if !ok || d < 0 {
		return invalid("hold off sleep", fmt.Errorf("for=%q is not a time", text), "write a number of seconds or a text such as 10m; 0 ends it")
	}
	return a.SetBusy(ctx, id, time.Now().Add(d))
}

func (a *Agenda) setAlarm(ctx context.Context, id tenement.InstanceID, r *http.Request) error {
	const op = "set an alarm"
	name, err := alarmNameOf(r)
	if err != nil {
		return err
	}
	now := time.Now()
	at, ok := moment(r.FormValue("at"), now)
	switch {
	case !ok:
		return invalid(op, fmt.Errorf("at=%q is not a time", r.FormValue("at")), "write 2026-03-01T12:00:00Z (RFC 3339), or +10m for ten minutes from now")
	case at.After(now.Add(maxAhead)):
		return invalid(op, errors.New("that is more than a year from now"), "")
	}
	if err := a.Store.SetAlarm(ctx, id, name, at); err != nil {
		return err
	}
	a.Poke()
	return nil
}

func (a *Agenda) deleteAlarm(ctx context.Context, id tenement.InstanceID, r *http.Request) error {
	name, err := alarmNameOf(r)
	if err != nil {
		return err
	}
	return a.Store.DeleteAlarm(ctx, id, name)
}

func alarmNameOf(r *http.Request) (string, error) {
	name := r.FormValue("name")
	if name == "" {
		return alarmName, nil
	}
	if len(name) > maxAlarmName || strings.ContainsFunc(name, func(c rune) bool { return c <= ' ' || c > '~' }) {
		return "", invalid("name an alarm", errors.New("that is not a name"), "up to 64 letters, digits and signs of ASCII, without spaces")
	}
	return name, nil
}

// moment reads a time, or a duration from now. A "+" that was not escaped arrives as a
// space.
func moment(text string, now time.Time) (time.Time, bool) {
	text = strings.ReplaceAll(text, " ", "+")
	if at, err := time.Parse(time.RFC3339, text); err == nil {
		return at, true
	}
	d, ok := duration(strings.TrimPrefix(text, "+"))
	return now.Add(d), ok && d >= 0
}

// duration reads a number of seconds, or a number with a unit.
func duration(text string) (time.Duration, bool) {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return time.Duration(seconds) * time.Second, true
	}
	d, err := time.ParseDuration(text)
	return d, err == nil
}

func invalid(op string, err error, hint string) error {
	return &tenement.Error{Code: tenement.CodeInvalid, Op: op, Err: err, Hint: hint}
}
