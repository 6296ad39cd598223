package e2e

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"tenement"
	"tenement/internal/api"
)

// load is a steady stream of requests to many notebooks: each second request writes a
// note, each first one reads them all.
type load struct {
	t      *testing.T
	client *http.Client
	base   string
	hosts  []string
	quit   chan struct{}
	done   sync.WaitGroup

	mu       sync.Mutex
	sent     int
	failures []failedRequest
	kept     map[string][]string // by host: the notes whose writing was acknowledged
}

type failedRequest struct {
	begun, ended time.Time
	err          error
}

// startLoad sends perSecond requests a second, whether the ones before are answered or
// not, until stop. With keepAlive they share connections.
func (d *daemon) startLoad(hosts []string, perSecond int, keepAlive bool) *load {
	d.t.Helper()
	l := &load{
		t: d.t, base: d.base, hosts: hosts, quit: make(chan struct{}), kept: make(map[string][]string),
		client: &http.Client{Transport: &http.Transport{MaxIdleConnsPerHost: 2 * perSecond, DisableKeepAlives: !keepAlive}, Timeout: httpTimeout},
	}
	l.done.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(perSecond))
		defer tick.Stop()
		for n := 0; ; n++ {
			select {
			case <-l.quit:
				return
			case <-tick.C:
				l.done.Go(func() { l.send(n) })
			}
		}
	})
	d.t.Cleanup(func() { l.stop(); l.client.CloseIdleConnections() })
	return l
}

// waitFor returns when n more requests have been answered or have failed.
func (l *load) waitFor(n int) {
	l.t.Helper()
	goal := l.count() + n
	deadline := time.After(httpTimeout)
	for tick := time.Tick(5 * time.Millisecond); l.count() < goal; {
		select {
		case <-tick:
		case <-deadline:
			l.t.Fatalf("only %d requests of %d were answered", l.count(), goal)
		}
	}
}

func (l *load) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sent
}

// stop waits for every answer. To stop again does nothing.
func (l *load) stop() {
	select {
	case <-l.quit:
	default:
		close(l.quit)
	}
	l.done.Wait()
}

func (l *load) send(n int) {
	host, begun := l.hosts[n/2%len(l.hosts)], time.Now()
	note, err := "", error(nil)
	if n%2 == 0 {
		err = l.ask(http.MethodGet, host, "", http.StatusOK)
	} else {
		note = fmt.Sprintf("note-%d-", n)
		err = l.ask(http.MethodPost, host, note, http.StatusCreated)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sent++
	switch {
	case err != nil:
		l.failures = append(l.failures, failedRequest{begun, time.Now(), err})
	case note != "":
		l.kept[host] = append(l.kept[host], note)
	}
}

func (l *load) ask(method, host, body string, want int) error {
	req, err := http.NewRequestWithContext(l.t.Context(), method, l.base+"/notes", strings.NewReader(body))
	if err != nil {
		return err
	}
	req.Host = host
	req.Header.Set("Content-Type", "text/plain")
	resp, err := l.client.Do(req)
	if err != nil {
		return err
	}
	text, err := io.ReadAll(resp.Body)
	if resp.StatusCode != want {
		err = errors.Join(err, fmt.Errorf("%s: %s", resp.Status, text))
	}
	return errors.Join(err, resp.Body.Close())
}

// wantKept checks that no note is missing whose writing was acknowledged.
func (l *load) wantKept(d *daemon) {
	l.t.Helper()
	for host, notes := range l.kept {
		text := d.get(http.StatusOK, host, "/notes").body
		for _, note := range notes {
			if !strings.Contains(text, note) {
				l.t.Errorf("%s has lost %s", host, note)
			}
		}
	}
}

// spawnMany registers and wakes n notebooks and gives their hosts.
func (d *daemon) spawnMany(n int) (hosts []string) {
	d.t.Helper()
	client := d.api()
	for i := range n {
		id := tenement.InstanceID{Service: "notes", Name: fmt.Sprint("c", i)}
		if _, err := client.Spawn(d.t.Context(), id, api.SpawnOptions{Wake: true}); err != nil {
			d.t.Fatal(err)
		}
		hosts = append(hosts, fmt.Sprintf("c%d.notes.localhost", i))
	}
	return hosts
}

// pids are the processes of everything that is awake.
func (d *daemon) pids() map[tenement.InstanceID]int {
	d.t.Helper()
	page, err := d.api().Instances(d.t.Context(), api.ListOptions{AwakeOnly: true, Limit: api.MaxInstances})
	if err != nil {
		d.t.Fatal(err)
	}
	pids := make(map[tenement.InstanceID]int)
	for _, i := range page.Instances {
		pids[i.ID] = i.PID
	}
	return pids
}

// api is a client of the daemon that serves now.
func (d *daemon) api() *api.Client {
	d.t.Helper()
	client, err := api.NewClient(api.Target{Socket: filepath.Join(d.files(), ".tenement", "ten.sock")})
	if err != nil {
		d.t.Fatal(err)
	}
	d.t.Cleanup(client.CloseIdleConnections)
	return client
}
