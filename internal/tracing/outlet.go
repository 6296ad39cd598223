package tracing

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

const (
	// maxWaiting bounds the spans that wait to be sent: while the collector takes none, later
	// ones are lost. One takes some 2 KiB.
	maxWaiting = 4096

	// reportPace is how often it is reported, at most, that spans are lost.
	reportPace = time.Minute
)

// outlet takes spans that have ended, and has them sent in batches by a goroutine: who ends
// one does not wait for the collector.
type outlet struct {
	sdktrace.SpanProcessor
	sender *sender
}

func newOutlet(ctx context.Context, to sdktrace.SpanExporter, log *slog.Logger) *outlet {
	s := &sender{SpanExporter: to, log: log}
	s.ended, s.giveUp = context.WithCancel(context.WithoutCancel(ctx))
	return &outlet{sender: s, SpanProcessor: sdktrace.NewBatchSpanProcessor(s,
		sdktrace.WithMaxQueueSize(maxWaiting), sdktrace.WithMaxExportBatchSize(maxWaiting/8),
		sdktrace.WithBatchTimeout(sendPace), sdktrace.WithExportTimeout(sendTime))}
}

// OnEnd implements [sdktrace.SpanProcessor]. The one that it has would not tell of a span for
// which there is no room.
func (o *outlet) OnEnd(s sdktrace.ReadOnlySpan) {
	if o.sender.waiting.Add(1) > maxWaiting {
		o.sender.waiting.Add(-1)
		o.sender.lost.Add(1)
		return
	}
	o.SpanProcessor.OnEnd(s)
}

// sender sends batches, counts what is lost, and reports it now and then.
type sender struct {
	sdktrace.SpanExporter
	log     *slog.Logger
	ended   context.Context // cuts off what is being sent
	giveUp  context.CancelFunc
	waiting atomic.Int64 // spans
	lost    atomic.Int64

	// The sending goroutine's:
	failure    error // the last one
	reported   int64 // of the spans that are lost
	reportedAt time.Time
}

// ExportSpans implements [sdktrace.SpanExporter]. It is called by one goroutine.
func (s *sender) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(s.ended, cancel)() //nolint:contextcheck // it ends with either
	err := s.SpanExporter.ExportSpans(ctx, spans)
	s.waiting.Add(-int64(len(spans)))
	if err != nil {
		s.lost.Add(int64(len(spans)))
		s.failure = err
	}
	s.report()
	return nil // it has been reported
}

func (s *sender) report() {
	lost := s.lost.Load()
	if lost == s.reported || !s.reportedAt.IsZero() && time.Since(s.reportedAt) < reportPace {
		return
	}
	s.log.Warn("traces are incomplete: the collector does not take every span", "lost", lost-s.reported, "error", s.failure)
	s.reported, s.reportedAt = lost, time.Now()
}
