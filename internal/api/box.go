package api

import (
	"context"
	"net/http"
	"time"

	"tenement"
)

// Caller is who asks, as the daemon knows them.
type Caller struct {
	Actor  string        `json:"actor" doc:"as the audit log calls them: token:ID, or local:UID at the socket"`
	Scope  tenement.Role `json:"scope" enum:"admin,read-only,metrics,tenant"`
	Tenant string        `json:"tenant,omitempty" doc:"with the scope tenant"`
}

// Box is the machine as the daemon finds it, and what the daemon keeps there. What the
// system does not say is left out.
type Box struct {
	Version   string         `json:"version,omitempty" doc:"of the daemon"`
	StartedAt time.Time      `json:"started_at" doc:"when this daemon took the instances over"`
	Services  []string       `json:"services" nullable:"false" doc:"that the configuration has"`
	States    map[string]int `json:"states" doc:"how many instances are in which state; those of which there are none are left out"`
	Leases    int            `json:"leases" doc:"requests, streams and upgraded connections under way"`
	Waiting   int            `json:"waiting" doc:"requests held until their instances are ready"`
	Cores     int            `json:"cores"`
	Load      float64        `json:"load,omitempty" doc:"programs that ran or wanted to, on average over the last minute"`
	Memory    Room           `json:"memory"`
	Disk      Room           `json:"disk" doc:"of the file system with the data directory"`
	Pressure  Pressure       `json:"pressure"`
}

// Room is how much there is of something, and how much of it can still be had.
type Room struct {
	Total     tenement.Bytes `json:"total_bytes,omitempty"`
	Available tenement.Bytes `json:"available_bytes,omitempty"`
}

// Pressure is for how many percent of the last ten seconds some program had to wait
// (Documentation/accounting/psi.rst, some avg10).
type Pressure struct {
	CPU    float64 `json:"cpu,omitempty"`
	Memory float64 `json:"memory,omitempty"`
	IO     float64 `json:"io,omitempty"`
}

func (s *Server) whoami(_ context.Context, c *call, _ *none) (*answer[Caller], error) {
	return &answer[Caller]{Caller{Actor: c.actor, Scope: c.scope.Role, Tenant: c.scope.Tenant}}, nil
}

func (s *Server) box(ctx context.Context, _ *call, _ *none) (*answer[Box], error) {
	box, err := s.backend.Box(ctx)
	if err != nil {
		return nil, err
	}
	box.Version = s.version
	return &answer[Box]{box}, nil
}

// Caller is who this client is to the daemon.
func (c *Client) Caller(ctx context.Context) (Caller, error) {
	var who Caller
	err := c.do(ctx, http.MethodGet, "/api/whoami", nil, nil, &who)
	return who, err
}

// Box is the daemon's machine and what it keeps there.
func (c *Client) Box(ctx context.Context) (Box, error) {
	var box Box
	err := c.do(ctx, http.MethodGet, "/api/box", nil, nil, &box)
	return box, err
}
