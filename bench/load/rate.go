package load

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	vegeta "github.com/tsenart/vegeta/v12/lib"
)

// AtRate asks perSecond times a second for d, whatever answers take, over connections
// that are kept. What is answered in warm, before that, is not counted, but what fails is.
func AtRate(ctx context.Context, t Target, perSecond int, warm, d time.Duration) *Result {
	attacker := vegeta.NewAttacker(vegeta.Timeout(patience), vegeta.KeepAlive(true), vegeta.HTTP2(false),
		vegeta.Redirects(vegeta.NoFollow))
	defer context.AfterFunc(ctx, func() { attacker.Stop() })()
	targets := make([]vegeta.Target, len(t.Hosts))
	for i, host := range t.Hosts {
		targets[i] = vegeta.Target{
			Method: http.MethodGet, URL: "http://" + t.Address + t.Path, Header: http.Header{"Host": {host}},
		}
	}
	r := &Result{}
	counting := time.Now().Add(warm)
	measuring := false
	results := attacker.Attack(vegeta.NewStaticTargeter(targets...), vegeta.ConstantPacer{Freq: perSecond, Per: time.Second}, warm+d, t.Address)
	for result := range results {
		if !measuring && result.Timestamp.After(counting) {
			measuring, r.CPU = true, -t.Meter()
		}
		switch {
		case result.Error != "" || result.Code != http.StatusOK:
			r.fail(result)
		case measuring && result.Timestamp.After(counting):
			r.latencies = append(r.latencies, result.Latency)
		}
	}
	r.CPU += t.Meter()
	r.Took = time.Since(counting)
	return r.sorted()
}

func (r *Result) fail(result *vegeta.Result) {
	r.Failed++
	if r.First == nil {
		r.First = fmt.Errorf("status %d: %w", result.Code, errors.New(result.Error))
	}
}
