package api

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"tenement"
)

// UsageHour is what one instance has used in one hour.
type UsageHour struct {
	Hour              time.Time           `json:"hour" doc:"its beginning, UTC"`
	Instance          tenement.InstanceID `json:"instance"`
	AwakeSeconds      float64             `json:"awake_seconds" doc:"it had a process, frozen or not"`
	CPUSeconds        float64             `json:"cpu_seconds" doc:"all its processes together"`
	MemoryByteSeconds int64               `json:"memory_byte_seconds" doc:"memory in use, times the time it was"`
	Requests          int64               `json:"requests" doc:"that its process was to answer"`
	BytesIn           int64               `json:"bytes_in" doc:"bodies of requests, and what came on upgraded connections"`
	BytesOut          int64               `json:"bytes_out" doc:"bodies of responses, and what went out on upgraded connections"`
	StorageBytes      int64               `json:"storage_bytes" doc:"what its data took on the disk at the last look in that hour; 0: nobody has looked"`
}

// Usage is one page of hours, in the order of time, then of instances.
type Usage struct {
	Hours []UsageHour `json:"hours" nullable:"false"`
	Next  time.Time   `json:"next,omitzero" doc:"ask again with since set to this; absent on the last page"`
}

type usageInput struct {
	Instance tenement.InstanceID `query:"instance"`
	Since    time.Time           `query:"since" doc:"hours that begin then or later"`
	Until    time.Time           `query:"until" doc:"not included"`
}

func (s *Server) usage(ctx context.Context, c *call, in *usageInput) (*answer[Usage], error) {
	if err := c.seeLogs(in.Instance); err != nil {
		return nil, err
	}
	list, next, err := s.backend.Usage(ctx, tenement.UsageQuery{Instance: in.Instance, Tenant: c.scope.Tenant, Since: in.Since, Until: in.Until})
	if err != nil {
		return nil, err
	}
	page := Usage{Hours: make([]UsageHour, len(list)), Next: next}
	for i, u := range list {
		page.Hours[i] = UsageHour{
			Hour: u.Hour, Instance: u.Instance, AwakeSeconds: u.Awake.Seconds(), CPUSeconds: u.CPU.Seconds(),
			MemoryByteSeconds: u.MemoryByteSeconds, Requests: u.Requests, BytesIn: u.BytesIn, BytesOut: u.BytesOut,
			StorageBytes: int64(u.Storage),
		}
	}
	return &answer[Usage]{page}, nil
}

// UsageOptions selects hours. Empty fields select all.
type UsageOptions struct {
	Instance     tenement.InstanceID
	Since, Until time.Time // hours that begin from Since on and before Until
}

// Usage is one page of what instances have used, in the order of time.
func (c *Client) Usage(ctx context.Context, o UsageOptions) (Usage, error) {
	q := url.Values{}
	setID(q, "instance", o.Instance)
	setTime(q, "since", o.Since)
	setTime(q, "until", o.Until)
	var page Usage
	err := c.do(ctx, http.MethodGet, "/api/usage", q, nil, &page)
	return page, err
}

// textType is the media type of metrics, without its parameters.
const textType = "text/plain"

func (s *Server) metrics(ctx context.Context, _ *call, _ *none) (*document, error) {
	text, err := s.backend.Metrics(ctx)
	if err != nil {
		return nil, err
	}
	return &document{ContentType: textType + "; version=0.0.4; charset=utf-8", Body: text}, nil
}

// Metrics is every metric of the daemon, in the text format of Prometheus.
func (c *Client) Metrics(ctx context.Context) ([]byte, error) {
	var text []byte
	err := c.do(ctx, http.MethodGet, "/metrics", nil, nil, &text)
	return text, err
}
