package api

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"time"

	"tenement"
)

// UsageTotal is a sum of hours: of one instance, or of all in one hour.
type UsageTotal struct {
	Hour              time.Time            `json:"hour,omitzero" doc:"its beginning, UTC; with by=hour"`
	Instance          *tenement.InstanceID `json:"instance,omitempty" doc:"with by=instance"`
	AwakeSeconds      float64              `json:"awake_seconds"`
	CPUSeconds        float64              `json:"cpu_seconds"`
	MemoryByteSeconds int64                `json:"memory_byte_seconds"`
	Requests          int64                `json:"requests"`
	BytesIn           int64                `json:"bytes_in"`
	BytesOut          int64                `json:"bytes_out"`
	StorageBytes      int64                `json:"storage_bytes" doc:"of each instance at the last look, not a sum over time; by hour of those that were awake then"`
}

// UsageTotals are sums of what instances have used.
type UsageTotals struct {
	All    UsageTotal   `json:"all" doc:"everything, also what is not among the totals"`
	Totals []UsageTotal `json:"totals" nullable:"false" doc:"by instance those that took most memory, most first; by hour the last ones, the oldest first"`
}

type usageTotalsInput struct {
	Instance tenement.InstanceID `query:"instance"`
	Since    time.Time           `query:"since" doc:"hours that begin then or later"`
	Until    time.Time           `query:"until" doc:"not included"`
	By       tenement.UsageBy    `query:"by" enum:"instance,hour" default:"instance"`
	Limit    int                 `query:"limit" minimum:"1" maximum:"10000" default:"100"`
}

func (s *Server) usageTotals(ctx context.Context, c *call, in *usageTotalsInput) (*answer[UsageTotals], error) {
	if err := c.seeLogs(in.Instance); err != nil {
		return nil, err
	}
	q := tenement.UsageQuery{Instance: in.Instance, Tenant: c.scope.Tenant, Since: in.Since, Until: in.Until}
	all, err := s.backend.UsageTotals(ctx, q, tenement.UsageInAll, 1)
	if err != nil {
		return nil, err
	}
	list, err := s.backend.UsageTotals(ctx, q, in.By, in.Limit)
	if err != nil {
		return nil, err
	}
	totals := UsageTotals{Totals: make([]UsageTotal, len(list))}
	for _, u := range all {
		totals.All = usageTotal(u)
	}
	if in.By == tenement.UsageByHour {
		slices.Reverse(list)
	}
	for i, u := range list {
		totals.Totals[i] = usageTotal(u)
	}
	return &answer[UsageTotals]{totals}, nil
}

func usageTotal(u tenement.UsageHour) UsageTotal {
	total := UsageTotal{
		Hour: u.Hour, AwakeSeconds: u.Awake.Seconds(), CPUSeconds: u.CPU.Seconds(), MemoryByteSeconds: u.MemoryByteSeconds,
		Requests: u.Requests, BytesIn: u.BytesIn, BytesOut: u.BytesOut, StorageBytes: int64(u.Storage),
	}
	if !u.Instance.IsZero() {
		total.Instance = &u.Instance
	}
	return total
}

// UsageTotals are the sums of what o selects, by instance or by hour; limit, up to 10,000,
// bounds how many, 0 being the daemon's default.
func (c *Client) UsageTotals(ctx context.Context, o UsageOptions, by tenement.UsageBy, limit int) (UsageTotals, error) {
	q := url.Values{"by": {string(by)}}
	setID(q, "instance", o.Instance)
	setTime(q, "since", o.Since)
	setTime(q, "until", o.Until)
	setLimit(q, limit)
	var totals UsageTotals
	err := c.do(ctx, http.MethodGet, "/api/usage/totals", q, nil, &totals)
	return totals, err
}
