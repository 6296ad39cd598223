package api

import (
	"context"
	"net/http"
	"time"

	"tenement"
)

// Timeline is what became of an instance in the last hour, oldest first. The daemon keeps
// it in memory: it begins when this daemon took over, and is forgotten an hour after the
// instance fell asleep, or once a thousand others have fallen asleep since.
type Timeline struct {
	StepSeconds float64       `json:"step_seconds" doc:"from one sample to the next"`
	Samples     []Sample      `json:"samples" nullable:"false" doc:"of the steps in which it was awake"`
	Changes     []StateChange `json:"changes" nullable:"false" doc:"the last hundred"`
}

// Sample is what an instance did within one step.
type Sample struct {
	At         time.Time      `json:"at" doc:"the end of the step"`
	Requests   int            `json:"requests"`
	Errors     int            `json:"errors" doc:"of these, how many were answered with 5xx"`
	MedianMS   float64        `json:"median_ms,omitempty" doc:"half of the requests took no longer; rounded up, by less than a quarter"`
	P95MS      float64        `json:"p95_ms,omitempty" doc:"95 of 100 took no longer; rounded up, by less than a quarter"`
	CPUSeconds float64        `json:"cpu_seconds" doc:"all its processes together"`
	Memory     tenement.Bytes `json:"memory_bytes,omitempty" doc:"the same, at the end of the step; absent without a process"`
}

// StateChange is one step from a state to another.
type StateChange struct {
	At   time.Time      `json:"at"`
	From tenement.State `json:"from"`
	To   tenement.State `json:"to"`
}

// BoxTimeline is how the machine did in the last hour, oldest first. The daemon keeps it in
// memory: it begins when this daemon took over.
type BoxTimeline struct {
	StepSeconds float64     `json:"step_seconds" doc:"from one sample to the next"`
	Samples     []BoxSample `json:"samples" nullable:"false"`
}

// BoxSample is how the machine did within one step, or at its end.
type BoxSample struct {
	At         time.Time      `json:"at" doc:"the end of the step"`
	Awake      int            `json:"awake" doc:"instances that have an owner: neither asleep, suspended nor failed"`
	Leases     int            `json:"leases"`
	Waiting    int            `json:"waiting" doc:"requests held until their instances are ready"`
	Requests   int            `json:"requests" doc:"of all instances, within the step"`
	Errors     int            `json:"errors" doc:"of these, how many were answered with 5xx"`
	CPUSeconds float64        `json:"cpu_seconds" doc:"of all instances, within the step"`
	Load       float64        `json:"load,omitempty"`
	Available  tenement.Bytes `json:"memory_available_bytes,omitempty"`
	Pressure   Pressure       `json:"pressure"`
}

func (s *Server) timeline(ctx context.Context, _ *call, in *onInstance) (*answer[Timeline], error) {
	t, err := s.backend.Timeline(ctx, in.ID)
	if err != nil {
		return nil, err
	}
	shown := Timeline{StepSeconds: t.Step.Seconds(), Samples: make([]Sample, len(t.Samples)), Changes: make([]StateChange, len(t.Changes))}
	for i, p := range t.Samples {
		shown.Samples[i] = Sample{
			At: p.At, Requests: p.Requests, Errors: p.Errors, MedianMS: milliseconds(p.Median), P95MS: milliseconds(p.P95),
			CPUSeconds: p.CPU.Seconds(), Memory: p.Memory,
		}
	}
	for i, change := range t.Changes {
		shown.Changes[i] = StateChange(change)
	}
	return &answer[Timeline]{shown}, nil
}

func (s *Server) boxTimeline(ctx context.Context, _ *call, _ *none) (*answer[BoxTimeline], error) {
	t, err := s.backend.BoxTimeline(ctx)
	if err != nil {
		return nil, err
	}
	return &answer[BoxTimeline]{t}, nil
}

// Timeline is what became of id in the last hour.
func (c *Client) Timeline(ctx context.Context, id tenement.InstanceID) (Timeline, error) {
	var t Timeline
	err := c.do(ctx, http.MethodGet, pathOf(id)+"/timeline", nil, nil, &t)
	return t, err
}

// BoxTimeline is how the daemon's machine did in the last hour.
func (c *Client) BoxTimeline(ctx context.Context) (BoxTimeline, error) {
	var t BoxTimeline
	err := c.do(ctx, http.MethodGet, "/api/box/timeline", nil, nil, &t)
	return t, err
}
