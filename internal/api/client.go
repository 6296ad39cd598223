package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"tenement"
)

// maxAnswer bounds what a client reads of one answer, in bytes: [MaxLogLines]
// lines fit.
const maxAnswer = 1 << 30

const (
	dialTimeout = 10 * time.Second
	hintServe   = "is the daemon running? start it with: ten serve"
	hintServer  = "is this the address of a tenement daemon?"
)

// Target says where a daemon is: at a socket of this machine, or at a URL.
type Target struct {
	Socket string // path; used when Server is empty
	Server string // such as https://example.com
	Token  string // optional at a socket
}

// Client asks one daemon. Its methods may be called concurrently, and their errors
// are the daemon's own, with the same code and hint; CodeUnreachable when nothing
// answers. A call takes as long as the daemon does: bound it with its context.
type Client struct {
	base  string
	token string
	unix  bool
	http  *http.Client
}

// NewClient makes a client; nothing is asked yet. A Server that is no http or
// https URL is CodeInvalid.
func NewClient(t Target) (*Client, error) {
	dialer := &net.Dialer{Timeout: dialTimeout}
	transport := &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         dialer.DialContext,
		TLSHandshakeTimeout: dialTimeout,
		IdleConnTimeout:     time.Minute,
		ForceAttemptHTTP2:   true,
	}
	c := &Client{base: t.Server, token: t.Token, http: &http.Client{
		Transport: transport,
		// A token is for the daemon that was named and for no other.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if t.Server == "" {
		c.base, c.unix = "http://tenement", true
		transport.Proxy = nil
		transport.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return dialer.DialContext(ctx, "unix", t.Socket)
		}
		return c, nil
	}
	u, err := url.Parse(t.Server)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" {
		return nil, &tenement.Error{
			Code: tenement.CodeInvalid, Op: "reach the daemon",
			Err:  fmt.Errorf("%q is not the address of a server", t.Server),
			Hint: "write it like https://example.com",
		}
	}
	c.base = u.Scheme + "://" + u.Host
	return c, nil
}

// CloseIdleConnections closes connections that no call is using.
func (c *Client) CloseIdleConnections() { c.http.CloseIdleConnections() }

// do sends in as JSON unless it is nil, and reads the answer into out unless that
// is nil: JSON, or bytes or text into a *[]byte.
func (c *Client) do(ctx context.Context, method, path string, query url.Values, in, out any) error {
	target := c.base + path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	var text []byte
	if in != nil {
		var err error
		if text, err = json.Marshal(in); err != nil {
			return &tenement.Error{Code: tenement.CodeInternal, Op: "write request", Err: err}
		}
	}
	req, err := c.request(ctx, method, target, text)
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.unanswered(ctx, err)
	}
	defer resp.Body.Close()
	return c.read(ctx, resp, out)
}

// request has a body of JSON unless text is nil.
func (c *Client) request(ctx context.Context, method, target string, text []byte) (*http.Request, error) {
	var body io.Reader
	if text != nil {
		body = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(ctx, method, target, body)
	if err != nil {
		return nil, &tenement.Error{Code: tenement.CodeInvalid, Op: "write request", Err: err}
	}
	if text != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		req.Header.Set("Authorization", "Bearer "+c.token)
	}
	return req, nil
}

// unanswered is the error of a call that got no answer.
func (c *Client) unanswered(ctx context.Context, err error) error {
	const op = "reach the daemon"
	switch {
	case ctx.Err() != nil:
		return &tenement.Error{Code: tenement.CodeOf(ctx.Err()), Op: "wait for the daemon", Err: ctx.Err()}
	case c.unix && errors.Is(err, os.ErrPermission):
		return &tenement.Error{
			Code: tenement.CodeForbidden, Op: op, Err: cause(err),
			Hint: "run it as root or as the daemon's user, or reach the daemon with --server and --token",
		}
	}
	return &tenement.Error{Code: tenement.CodeUnreachable, Op: op, Err: cause(err), Hint: hintServe}
}

// cause leaves out the request's URL, which for a socket is made up.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

func (c *Client) read(ctx context.Context, resp *http.Response, out any) error {
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return c.unanswered(ctx, err)
	}
	raw, wantsRaw := out.(*[]byte)
	kind, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")) // "" when there is none
	switch {
	case kind == problemType:
		return problemOf(resp, body)
	case resp.StatusCode < 200 || resp.StatusCode > 299:
		return notOurs(fmt.Errorf("the answer has status %s and is not a tenement daemon's", resp.Status))
	case out == nil:
		return nil
	case wantsRaw && (kind == binaryType || kind == textType):
		*raw = body
		return nil
	case kind != "application/json":
		return notOurs(fmt.Errorf("the answer is not JSON but %q", kind))
	}
	if err := json.Unmarshal(body, out); err != nil {
		return notOurs(fmt.Errorf("read the answer: %w", err))
	}
	return nil
}

func notOurs(err error) error {
	return &tenement.Error{Code: tenement.CodeUnreachable, Op: "reach the daemon", Err: err, Hint: hintServer}
}

// problemOf is the daemon's error, as it was before it was written.
func problemOf(resp *http.Response, body []byte) error {
	var p Problem
	if err := json.Unmarshal(body, &p); err != nil {
		return notOurs(fmt.Errorf("read the answer: %w", err))
	}
	if p.Code == "" { // another server's problem document
		p.Code = codeOfStatus(resp.StatusCode)
	}
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil {
		seconds = 0 // absent, or a date, which we never send
	}
	return p.err(time.Duration(seconds) * time.Second)
}
