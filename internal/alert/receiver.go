package alert

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	standardwebhooks "github.com/standard-webhooks/standard-webhooks/libraries/go"

	"tenement"
	"tenement/internal/config"
)

const (
	sendTimeout = 10 * time.Second
	maxAnswer   = 64 << 10 // bytes of a receiver's header
	maxSaid     = 200      // bytes of its body, of which we read no more
)

// Receiver is who is told, and of what. It is not changed once it was made, so it may be
// shared between goroutines. That of nobody is nil.
type Receiver struct {
	url     string
	kinds   []tenement.AlertKind
	diskLow tenement.Bytes
	webhook *standardwebhooks.Webhook
	client  *http.Client
}

// NewReceiver reads the secret; nil if there is nobody to tell. It is CodeInvalid if the
// secret cannot be used.
func NewReceiver(c config.Alerts) (*Receiver, error) {
	if c.URL == "" {
		return nil, nil //nolint:nilnil // off
	}
	webhook, err := readSecret(c.SecretFile)
	if err != nil {
		return nil, &tenement.Error{
			Code: tenement.CodeInvalid, Op: "read secret_file of [settings.alerts]", Err: err,
			Hint: `make a new one: (umask 077; echo "whsec_$(head -c 32 /dev/urandom | base64)" > ` + c.SecretFile + `)`,
		}
	}
	return &Receiver{
		url: c.URL, kinds: c.On, diskLow: c.DiskLow, webhook: webhook,
		client: &http.Client{
			Timeout:       sendTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				Proxy: http.ProxyFromEnvironment, MaxResponseHeaderBytes: maxAnswer,
				DisableKeepAlives: true, // alerts are rare
			},
		},
	}, nil
}

// The length of a key, in bytes (Standard Webhooks 1.0.0, "Symmetric").
const (
	leastKey = 24
	mostKey  = 64
)

func readSecret(path string) (*standardwebhooks.Webhook, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o007 != 0 {
		return nil, fmt.Errorf("%s may be read or written by everybody: chmod 600 it, or make a new one", path)
	}
	text, err := io.ReadAll(io.LimitReader(file, 1<<10))
	if err != nil {
		return nil, err
	}
	encoded, marked := strings.CutPrefix(strings.TrimSpace(string(text)), "whsec_")
	key, err := base64.StdEncoding.DecodeString(encoded)
	if !marked || err != nil || len(key) < leastKey || len(key) > mostKey {
		return nil, fmt.Errorf("%s must hold whsec_ and then %d to %d bytes in base64", path, leastKey, mostKey)
	}
	return standardwebhooks.NewWebhookRaw(key)
}

// wants reports whether r is to be told of a kind; a nil r is not.
func (r *Receiver) wants(kind tenement.AlertKind) bool {
	return r != nil && slices.Contains(r.kinds, kind)
}

// Answer is what a receiver said to one message.
type Answer struct {
	ID         string // of the message
	Status     int    // 0: there was no answer
	Error      string // why the message was not delivered; "" if it was
	Took       time.Duration
	RetryAfter time.Duration // it is asked for; at most an hour
}

// Delivered reports whether the receiver has the message.
func (a Answer) Delivered() bool { return a.Error == "" }

// final reports whether it would be no use to send the message again.
func (a Answer) final() bool {
	switch a.Status {
	case http.StatusRequestTimeout, http.StatusTooManyRequests:
		return false
	}
	return a.Status/100 == 3 || a.Status/100 == 4
}

// send makes one attempt, which ends with ctx.
func (r *Receiver) send(ctx context.Context, a tenement.Alert) Answer {
	begin := time.Now()
	answer := Answer{ID: a.ID}
	response, err := r.post(ctx, a, begin)
	if err == nil {
		defer response.Body.Close()
		answer.Status = response.StatusCode
		answer.RetryAfter = retryAfter(response.Header.Get("Retry-After"), begin)
		if answer.Status/100 != 2 {
			err = refusal(response)
		}
	}
	if err != nil {
		answer.Error = err.Error()
	}
	answer.Took = time.Since(begin)
	return answer
}

func (r *Receiver) post(ctx context.Context, a tenement.Alert, now time.Time) (*http.Response, error) {
	signature, err := r.webhook.Sign(a.ID, now, a.Body)
	if err != nil {
		return nil, err
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodPost, r.url, bytes.NewReader(a.Body))
	if err != nil {
		return nil, err
	}
	request.Header.Set("Content-Type", "application/json")
	request.Header.Set("User-Agent", "tenement")
	request.Header.Set(standardwebhooks.HeaderWebhookID, a.ID)
	request.Header.Set(standardwebhooks.HeaderWebhookTimestamp, strconv.FormatInt(now.Unix(), 10))
	request.Header.Set(standardwebhooks.HeaderWebhookSignature, signature)
	response, err := r.client.Do(request)
	if failed := (*url.Error)(nil); errors.As(err, &failed) {
		err = failed.Err // without the URL, which may be a secret
	}
	return response, err
}

// refusal is what a receiver that did not take a message says.
func refusal(response *http.Response) error {
	text, _ := io.ReadAll(io.LimitReader(response.Body, maxSaid)) // the status says enough
	said, _, _ := strings.Cut(strings.TrimSpace(strings.ToValidUTF8(string(text), "\uFFFD")), "\n")
	if said == "" {
		return fmt.Errorf("status %d", response.StatusCode)
	}
	return fmt.Errorf("status %d: %s", response.StatusCode, said)
}

// retryAfter reads a Retry-After (RFC 9110 §10.2.3), but is never more than longestDelay.
func retryAfter(header string, now time.Time) time.Duration {
	wait := time.Duration(0)
	if seconds, err := strconv.Atoi(header); err == nil {
		wait = time.Duration(min(seconds, int(longestDelay/time.Second))) * time.Second
	} else if at, err := http.ParseTime(header); err == nil {
		wait = at.Sub(now)
	}
	return min(max(wait, 0), longestDelay)
}
