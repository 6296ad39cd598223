package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"tenement"
)

// predecessor is the daemon whose place this one takes.
type predecessor struct {
	control net.Conn
	decoder *json.Decoder
	front   *os.File
	admin   *os.File // nil when it has none
	handover
}

// findPredecessor is nil when this daemon takes nobody's place. What it finds, it finds
// once: neither tenants nor later daemons inherit it.
var findPredecessor = sync.OnceValues(func() (*predecessor, error) {
	text, ok := os.LookupEnv(handoverVariable)
	if !ok {
		return nil, nil //nolint:nilnil // the usual case
	}
	p := &predecessor{}
	if err := errors.Join(os.Unsetenv(handoverVariable), json.Unmarshal([]byte(text), &p.handover)); err != nil {
		return nil, fmt.Errorf("take over from another daemon: %w", err)
	}
	unix.CloseOnExec(frontFD)
	file := os.NewFile(controlFD, "handover")
	defer func() { _ = file.Close() }() // FileConn has a duplicate
	control, err := net.FileConn(file)
	if err != nil {
		return nil, fmt.Errorf("take over from another daemon: %w", err)
	}
	p.control, p.decoder, p.front = control, json.NewDecoder(control), os.NewFile(frontFD, "front")
	if p.AdminListen != "" {
		unix.CloseOnExec(adminFD)
		p.admin = os.NewFile(adminFD, "admin")
	}
	return p, nil
})

// accept refuses a daemon that would leave behind all that the old one has.
func (p *predecessor) accept(dataDir string) error {
	if p.DataDir == dataDir {
		return nil
	}
	return &tenement.Error{
		Code: tenement.CodeConflict, Op: "take over from another daemon",
		Err:  fmt.Errorf("data_dir is %s and cannot change from %s while the daemon runs", dataDir, p.DataDir),
		Hint: "end the daemon, move the directory, and start it again",
	}
}

// Declined tells the daemon that this one was to replace, if there is one, why it
// cannot, and returns err.
func Declined(err error) error {
	if p, _ := findPredecessor(); p != nil && err != nil {
		err = errors.Join(err, p.send(message{Error: err.Error()}))
	}
	return err
}

func (p *predecessor) send(m message) error { return json.NewEncoder(p.control).Encode(m) }

// awaitGo tells the old daemon that this one is ready and waits for its word.
func (p *predecessor) awaitGo(ctx context.Context) error {
	if err := p.send(message{Ready: true}); err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { _ = p.control.Close() })
	defer stop()
	var m message
	if err := p.decoder.Decode(&m); err != nil {
		return fmt.Errorf("the daemon to be replaced has gone: %w", err)
	}
	if !m.Go {
		return errors.New("the daemon to be replaced does not give way")
	}
	return nil
}

// seeOut takes what the old daemon has for the audit log, until it or ctx has ended.
func (p *predecessor) seeOut(ctx context.Context, record func(tenement.Event)) {
	stop := context.AfterFunc(ctx, func() { _ = p.control.Close() })
	defer stop()
	for {
		var m message
		if err := p.decoder.Decode(&m); err != nil {
			return
		}
		if m.Event != nil {
			record(*m.Event)
		}
	}
}

func (p *predecessor) close() error {
	err := errors.Join(p.control.Close(), p.front.Close())
	if p.admin != nil {
		err = errors.Join(err, p.admin.Close())
	}
	return err
}
