package api

import (
	"cmp"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"tenement"
)

var (
	alice = tenement.InstanceID{Service: "api", Name: "alice"}
	bob   = tenement.InstanceID{Service: "api", Name: "bob"}
)

// fakeBackend keeps instances in memory and notes what it was asked.
type fakeBackend struct {
	mu        sync.Mutex
	instances map[tenement.InstanceID]tenement.Status
	tokens    map[TokenHash]tenement.Token
	lines     []LogLine
	events    []tenement.Event
	asked     []any // the last of these is the options of the last request

	printed chan struct{} // closed when there is a line more
	stopped chan struct{} // ends all who follow; closed from the start unless a test says otherwise

	fail error                       // answered by everything that names an instance
	wait func(context.Context) error // called by Deploy
}

func newFakeBackend() *fakeBackend {
	b := &fakeBackend{
		instances: map[tenement.InstanceID]tenement.Status{}, tokens: map[TokenHash]tenement.Token{},
		printed: make(chan struct{}), stopped: make(chan struct{}),
	}
	close(b.stopped)
	for _, id := range []tenement.InstanceID{alice, bob, {Service: "web", Name: "alice"}} {
		b.instances[id] = tenement.Status{ID: id, State: tenement.Ready, Health: tenement.HealthHealthy, PID: 42, Reason: "/srv/secret"}
		b.lines = append(b.lines, LogLine{ID: int64(len(b.lines) + 1), At: time.Unix(1, 0).UTC(), Instance: id, Level: "stdout", Text: "hello " + id.String()})
		b.events = append(b.events, tenement.Event{ID: int64(len(b.events) + 1), Actor: "token:admin", From: "192.0.2.7", Action: "stop", Target: id.String(), Outcome: "ok", Detail: "of " + id.String()})
	}
	return b
}

func (b *fakeBackend) note(asked any) { b.asked = append(b.asked, asked) }

func (b *fakeBackend) lastAsked() any {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.asked[len(b.asked)-1]
}

// recorded are the events beside those that were there from the start.
func (b *fakeBackend) recorded() []tenement.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.Clone(b.events[3:])
}

func (b *fakeBackend) find(id tenement.InstanceID) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.fail != nil {
		return b.fail
	}
	if _, ok := b.instances[id]; !ok {
		return &tenement.Error{Code: tenement.CodeNotFound, Op: "find " + id.String(), Err: errors.New("no such instance")}
	}
	return nil
}

func (b *fakeBackend) Instances(_ context.Context, q ListQuery) ([]tenement.Status, int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(q)
	var list []tenement.Status
	for id, st := range b.instances {
		if (q.Service == "" || q.Service == id.Service) && (q.Name == "" || q.Name == id.Name) &&
			(q.After.IsZero() || id.String() > q.After.String()) {
			list = append(list, st)
		}
	}
	slices.SortFunc(list, func(x, y tenement.Status) int { return cmp.Compare(x.ID.String(), y.ID.String()) })
	return list[:min(len(list), q.Limit)], len(list), nil
}

func (b *fakeBackend) Instance(_ context.Context, id tenement.InstanceID) (tenement.Status, error) {
	err := b.find(id)
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.instances[id], err
}

func (b *fakeBackend) Spawn(_ context.Context, id tenement.InstanceID, o SpawnOptions) (tenement.Status, bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(o)
	st, known := b.instances[id]
	if !known {
		st = tenement.Status{ID: id, State: tenement.Asleep, Health: tenement.HealthUnknown}
		b.instances[id] = st
	}
	return st, !known, b.fail
}

func (b *fakeBackend) Start(_ context.Context, id tenement.InstanceID) error   { return b.find(id) }
func (b *fakeBackend) Stop(_ context.Context, id tenement.InstanceID) error    { return b.find(id) }
func (b *fakeBackend) Restart(_ context.Context, id tenement.InstanceID) error { return b.find(id) }
func (b *fakeBackend) Suspend(_ context.Context, id tenement.InstanceID) error { return b.find(id) }
func (b *fakeBackend) Resume(_ context.Context, id tenement.InstanceID) error  { return b.find(id) }

func (b *fakeBackend) Metrics(context.Context) ([]byte, error) {
	return []byte("# TYPE tenement_held_requests gauge\ntenement_held_requests 0\n"), nil
}

// fakeIDs are the instances that an answer is about.
func fakeIDs(id tenement.InstanceID, tenant string) (list []tenement.InstanceID) {
	for _, known := range []tenement.InstanceID{alice, bob} {
		if (id.IsZero() || id == known) && (tenant == "" || tenant == known.Name) {
			list = append(list, known)
		}
	}
	return list
}

func (b *fakeBackend) Wakes(_ context.Context, q tenement.WakeQuery) (list []tenement.WakeRecord, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(q)
	for n, id := range fakeIDs(q.Instance, q.Tenant) {
		list = append(list, tenement.WakeRecord{
			ID: int64(n + 1), Instance: id, At: time.Unix(1, 0).UTC(), Cause: tenement.CauseRequest, Client: "public", Agent: "curl", Path: "/",
			Queue: 1500 * time.Microsecond, Ready: time.Second, Outcome: tenement.WakeOK, Shared: 1,
		})
	}
	return list, b.fail
}

func (b *fakeBackend) Usage(_ context.Context, q tenement.UsageQuery) (list []tenement.UsageHour, next time.Time, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(q)
	for _, id := range fakeIDs(q.Instance, q.Tenant) {
		list = append(list, tenement.UsageHour{Instance: id, Hour: time.Unix(3600, 0).UTC(), Awake: time.Minute, CPU: 1500 * time.Millisecond, MemoryByteSeconds: 1 << 40, Requests: 3, BytesIn: 4, BytesOut: 5, Storage: 6})
	}
	return list, time.Unix(7200, 0).UTC(), b.fail
}

type totalsAsked struct {
	query tenement.UsageQuery
	by    tenement.UsageBy
	limit int
}

func (b *fakeBackend) UsageTotals(_ context.Context, q tenement.UsageQuery, by tenement.UsageBy, limit int) ([]tenement.UsageHour, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(totalsAsked{q, by, limit})
	sum := tenement.UsageHour{Awake: time.Minute, Requests: 3}
	switch by {
	case tenement.UsageByHour:
		earlier := sum
		sum.Hour, earlier.Hour = time.Unix(7200, 0).UTC(), time.Unix(3600, 0).UTC()
		return []tenement.UsageHour{sum, earlier}, b.fail
	case tenement.UsageByInstance:
		sum.Instance = fakeIDs(q.Instance, q.Tenant)[0]
	}
	return []tenement.UsageHour{sum}, b.fail
}

func (b *fakeBackend) Timeline(_ context.Context, id tenement.InstanceID) (tenement.Timeline, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(id)
	at := time.Unix(15, 0).UTC()
	return tenement.Timeline{
		Step:    15 * time.Second,
		Samples: []tenement.Sample{{At: at, Requests: 10, Errors: 1, Median: 1500 * time.Microsecond, P95: time.Second, CPU: 300 * time.Millisecond, Memory: 1 << 20}},
		Changes: []tenement.StateChange{{At: at, From: tenement.Asleep, To: tenement.Starting}},
	}, b.fail
}

func (b *fakeBackend) BoxTimeline(context.Context) (BoxTimeline, error) {
	return BoxTimeline{StepSeconds: 15, Samples: []BoxSample{{At: time.Unix(15, 0).UTC(), Awake: 2, Requests: 30, Pressure: Pressure{IO: 2}}}}, b.fail
}

type deleteAsked struct {
	id    tenement.InstanceID
	purge bool
}

func (b *fakeBackend) Delete(_ context.Context, id tenement.InstanceID, purge bool) error {
	err := b.find(id)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(deleteAsked{id, purge})
	return err
}

func (b *fakeBackend) SetWeight(_ context.Context, id tenement.InstanceID, weight int) error {
	err := b.find(id)
	b.mu.Lock()
	defer b.mu.Unlock()
	st := b.instances[id]
	st.Weight = weight
	b.instances[id] = st
	return err
}

func (b *fakeBackend) Health(_ context.Context, id tenement.InstanceID) (tenement.Health, string, error) {
	return tenement.HealthDegraded, "status 500", b.find(id)
}

func (b *fakeBackend) Storage(_ context.Context, id tenement.InstanceID) (Storage, error) {
	return Storage{
		ID: id, Path: "/var/lib/tenement/api/alice", UsedBytes: 4096, UsedFiles: 1,
		LimitBytes: 1 << 20, LimitFiles: 1000, Enforcement: "measured",
	}, b.find(id)
}

type deployAsked struct {
	id      tenement.InstanceID
	weight  int
	timeout time.Duration
}

func (b *fakeBackend) Settings(_ context.Context, id tenement.InstanceID) (Settings, error) {
	return Settings{ID: id, Values: map[string]any{"memory_limit_mb": 512}, Env: map[string]any{"A": "1"}, Secrets: []string{"TOKEN"}, Cron: map[string]any{"nightly": false}}, b.find(id)
}

func (b *fakeBackend) ChangeSettings(ctx context.Context, id tenement.InstanceID, change SettingsChange) (Settings, error) {
	b.mu.Lock()
	b.note(change)
	b.mu.Unlock()
	return b.Settings(ctx, id)
}

func (b *fakeBackend) Exec(_ context.Context, id tenement.InstanceID, r ExecRequest) (*Session, error) {
	return fakeSession(r), b.find(id)
}

func (b *fakeBackend) Run(ctx context.Context, id tenement.InstanceID, r ExecRequest) (*Session, error) {
	return b.Exec(ctx, id, r)
}

// fakeSession prints what it is told, and then ends with a status of 7.
func fakeSession(r ExecRequest) *Session {
	stdin, typed := io.Pipe()
	stdout, printed := io.Pipe()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = io.Copy(printed, io.MultiReader(strings.NewReader(strings.Join(r.Command, " ")+"\n"), stdin))
		_ = printed.Close()
	}()
	return &Session{
		Stdin: typed, Stdout: stdout, Stderr: strings.NewReader("trouble"),
		Resize: func(TermSize) error { return nil }, Signal: func(int) error { return typed.Close() },
		Wait:  func() int { <-done; return 7 },
		Close: func() { _ = typed.Close(); _ = stdout.Close() },
	}
}

func (b *fakeBackend) Deploy(ctx context.Context, id tenement.InstanceID, weight int, timeout time.Duration) error {
	b.mu.Lock()
	b.note(deployAsked{id, weight, timeout})
	wait := b.wait
	b.mu.Unlock()
	if wait != nil {
		return wait(ctx)
	}
	return nil
}

func (b *fakeBackend) Route(_ context.Context, service, from, to string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note([3]string{service, from, to})
	return b.fail
}

func (b *fakeBackend) Reload(_ context.Context, restart bool) (Reloaded, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(restart)
	return Reloaded{Changed: []string{"api"}, Outdated: []tenement.InstanceID{alice}}, b.fail
}

func (b *fakeBackend) Profile(_ context.Context, kind ProfileKind, duration time.Duration) ([]byte, error) {
	return []byte(string(kind) + duration.String()), nil
}

func (b *fakeBackend) Alerts(context.Context) ([]tenement.Alert, error) {
	at := time.Unix(1, 0).UTC()
	return []tenement.Alert{
		{ID: "msg_1", Kind: tenement.AlertFailed, At: at, Instance: alice, Attempts: 2, Due: at.Add(time.Second), Error: "status 500"},
		{ID: "msg_2", Kind: tenement.AlertDiskLow, At: at, Due: at},
	}, nil
}

func (b *fakeBackend) TestAlert(context.Context) (AlertTest, error) {
	return AlertTest{ID: "msg_3", Status: http.StatusBadRequest, Error: "status 400: no", TookMS: 1.5}, nil
}

func (b *fakeBackend) Upgrade(context.Context) (Upgraded, error) {
	return Upgraded{PID: 42, Version: "next"}, nil
}

func (b *fakeBackend) Logs(_ context.Context, q LogQuery) ([]LogLine, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(q)
	var lines []LogLine
	for _, l := range b.lines {
		if (q.Tenant == "" || q.Tenant == l.Instance.Name) && (q.Instance.IsZero() || q.Instance == l.Instance) && strings.Contains(l.Text, q.Search) {
			lines = append(lines, l)
		}
	}
	return lines, nil
}

// FollowLogs gives the lines there are after q.After, and then what is printed, until
// the backend stops: in tests of all routes at once.
func (b *fakeBackend) FollowLogs(q LogQuery) NextLogs {
	b.mu.Lock()
	b.note(q)
	stopped := b.stopped
	b.mu.Unlock()
	after := q.After
	return func(ctx context.Context) ([]LogLine, int64, error) {
		for {
			b.mu.Lock()
			printed := b.printed
			b.mu.Unlock()
			lines, _ := b.Logs(ctx, q)
			lines = slices.DeleteFunc(lines, func(l LogLine) bool { return l.ID <= after })
			if len(lines) > 0 {
				after = lines[len(lines)-1].ID
				return lines, after, nil
			}
			select {
			case <-printed:
			case <-stopped:
				return nil, after, &tenement.Error{Code: tenement.CodeUnavailable, Op: "follow", Err: errors.New("stopping")}
			case <-ctx.Done():
				return nil, after, ctx.Err()
			}
		}
	}
}

// print adds a line with the next id.
func (b *fakeBackend) print(id tenement.InstanceID, text string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.lines = append(b.lines, LogLine{ID: int64(len(b.lines) + 1), At: time.Unix(2, 0).UTC(), Instance: id, Level: "stdout", Text: text})
	close(b.printed)
	b.printed = make(chan struct{})
}

func (b *fakeBackend) CreateToken(_ context.Context, t tenement.Token) (tenement.Token, string, error) {
	secret, hash := NewToken()
	t.ID = secret[4:10]
	b.mu.Lock()
	defer b.mu.Unlock()
	b.tokens[hash] = t
	return t, secret, nil
}

func (b *fakeBackend) Tokens(context.Context) ([]tenement.Token, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var list []tenement.Token
	for _, t := range b.tokens {
		list = append(list, t)
	}
	return list, nil
}

func (b *fakeBackend) RevokeToken(_ context.Context, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	for hash, t := range b.tokens {
		if t.ID == id {
			delete(b.tokens, hash)
			return nil
		}
	}
	return &tenement.Error{Code: tenement.CodeNotFound, Op: "revoke " + id, Err: errors.New("no such token")}
}

func (b *fakeBackend) Authenticate(_ context.Context, secret string) (tenement.Token, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note("authenticate")
	hash, err := ParseToken(secret)
	if err != nil {
		return tenement.Token{}, err
	}
	if t, ok := b.tokens[hash]; ok && !t.Expired(time.Now()) {
		return t, nil
	}
	return tenement.Token{}, &tenement.Error{Code: tenement.CodeUnauthenticated, Op: "authenticate", Err: errors.New("unknown token")}
}

func (b *fakeBackend) Box(context.Context) (Box, error) {
	return Box{
		StartedAt: time.Unix(1, 0).UTC(), Services: []string{"api", "web"}, States: map[string]int{"ready": 3}, Cores: 2,
		Memory: Room{Total: 2 << 30, Available: 1 << 30}, Pressure: Pressure{CPU: 1.5},
	}, b.fail
}

func (b *fakeBackend) Ready(context.Context) error { return b.fail }

func (b *fakeBackend) Record(_ context.Context, e tenement.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	e.ID = int64(len(b.events) + 1)
	b.events = append(b.events, e)
	close(b.printed)
	b.printed = make(chan struct{})
}

func (b *fakeBackend) Events(_ context.Context, q tenement.EventQuery) ([]tenement.Event, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.note(q)
	var list []tenement.Event
	for _, e := range b.events {
		if (q.Target == "" || q.Target == e.Target) && (q.Tenant == "" || strings.HasSuffix(e.Target, ":"+q.Tenant)) && e.ID > q.After {
			list = append(list, e)
		}
	}
	return list[max(0, len(list)-q.Limit):], b.fail
}

// FollowEvents is like FollowLogs.
func (b *fakeBackend) FollowEvents(q tenement.EventQuery) NextEvents {
	b.mu.Lock()
	stopped := b.stopped
	b.mu.Unlock()
	q.Limit = 1000
	return func(ctx context.Context) ([]tenement.Event, int64, error) {
		for {
			b.mu.Lock()
			printed := b.printed
			b.mu.Unlock()
			if list, _ := b.Events(ctx, q); len(list) > 0 {
				q.After = list[len(list)-1].ID
				return list, q.After, nil
			}
			select {
			case <-printed:
			case <-stopped:
				return nil, q.After, &tenement.Error{Code: tenement.CodeUnavailable, Op: "follow", Err: errors.New("stopping")}
			case <-ctx.Done():
				return nil, q.After, ctx.Err()
			}
		}
	}
}

// secret makes a token directly, for a tenant or, with "", for an admin.
func (b *fakeBackend) secret(t *testing.T, tenant string) string {
	t.Helper()
	if tenant == "" {
		return b.secretFor(t, tenement.Token{Scope: tenement.Scope{Role: tenement.RoleAdmin}})
	}
	return b.secretFor(t, tenement.Token{Scope: tenement.TenantScope(tenant)})
}

func (b *fakeBackend) secretFor(t *testing.T, token tenement.Token) string {
	t.Helper()
	_, secret, err := b.CreateToken(t.Context(), token)
	if err != nil {
		t.Fatal(err)
	}
	return secret
}

func newTestServer(t *testing.T, b Backend) *Server {
	return NewServer(Options{
		Backend: b, Version: "v1.2.3",
		Log: slog.New(slog.NewTextHandler(t.Output(), nil)),
		URL: func(id tenement.InstanceID) string { return "http://" + id.Name + "." + id.Service + ".localhost" },
	})
}

// overTCP serves on a port of the loopback and is its URL.
func overTCP(t *testing.T, h http.Handler) string {
	t.Helper()
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return server.URL
}

// overSocket serves on a unix socket as the daemon does, with every caller being
// uid, or whoever it is when uid is negative.
func overSocket(t *testing.T, h http.Handler, uid int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	server := httptest.NewUnstartedServer(h)
	server.Listener.Close()
	server.Listener = listener
	server.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		peer, err := PeerUID(c)
		if err != nil {
			t.Errorf("PeerUID: %v", err)
		}
		if uid >= 0 {
			peer = uid
		}
		return WithLocalUser(ctx, peer)
	}
	server.Start()
	t.Cleanup(server.Close)
	return path
}

func newTestClient(t *testing.T, target Target) *Client {
	t.Helper()
	c, err := NewClient(target)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.CloseIdleConnections)
	return c
}
