package alert

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"tenement"
)

// maxReason bounds what a message says of the cause, in bytes.
const maxReason = 1000

// message is the body of a webhook (Standard Webhooks 1.0.0, "Payload structure").
type message struct {
	Type      tenement.AlertKind `json:"type"`
	Timestamp time.Time          `json:"timestamp"`
	Data      about              `json:"data"`
}

type about struct {
	Domain   string `json:"domain"`
	Instance string `json:"instance,omitempty"`
	Reason   string `json:"reason"`
	Disk     *room  `json:"disk,omitempty"`
}

type room struct {
	Available tenement.Bytes `json:"available_bytes"`
	Total     tenement.Bytes `json:"total_bytes"`
}

func (o *Outbox) body(n news) []byte {
	m := message{Type: n.kind, Timestamp: n.at.UTC(), Data: about{
		Domain: o.Domain(), Reason: strings.ToValidUTF8(n.reason[:min(len(n.reason), maxReason)], "\uFFFD"), Disk: n.room,
	}}
	if !n.id.IsZero() {
		m.Data.Instance = n.id.String()
	}
	body, err := json.Marshal(m)
	if err != nil {
		panic(err) // texts, numbers and a time of this millennium can be written
	}
	return body
}

func newID() string { return "msg_" + rand.Text() }

var errNoReceiver = &tenement.Error{
	Code: tenement.CodeConflict, Op: "send an alert", Err: errors.New("nobody is to be told: there is no [settings.alerts]"),
	Hint: "add it with url and secret_file, and type: ten reload",
}
