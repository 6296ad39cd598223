package main

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"tenement/bench/report"
)

// search is a function of the page.
//
//go:embed dashboard.js
var search string

// browserPatience bounds one step in the browser, on a machine that is busy.
const browserPatience = time.Minute

// dashboard measures how soon the list of instances can be used. chromedp, with which the
// tests look at the dashboard, makes this program larger and is there anyway; without it a
// browser can be told to load a page, but not to say what became of it.
func (b *bench) dashboard(ctx context.Context, s *report.Suite, o *operated) (err error) {
	program, err := exec.LookPath("chromium")
	if err != nil {
		s.Skip("dashboard", "there is no chromium")
		return nil
	}
	b.say("dashboard")
	base, err := o.url()
	if err != nil {
		return err
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(program), chromedp.NoSandbox, // its sandbox is not for root
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WindowSize(1280, 900),
		chromedp.UserDataDir(filepath.Join(b.dir, "chromium")), chromedp.WSURLReadTimeout(browserPatience))
	ctx, cancel := chromedp.NewExecAllocator(ctx, options...)
	defer cancel()
	ctx, cancel = chromedp.NewContext(ctx)
	defer cancel()
	defer func() { err = errors.Join(err, closeBrowser(ctx)) }()
	if err := chromedp.Do(ctx); err != nil { // it ends with this context
		return err
	}
	if err := logIn(ctx, base, o.token); err != nil {
		return err
	}
	table := s.Table("Dashboard", "", "", report.Metric{Name: "rows", Unit: "ms"}, report.Metric{Name: "searched", Unit: "ms"})
	for round := range pick(b, 15, 1) {
		rows, searched, err := list(ctx, base, o.last)
		if err != nil {
			return err
		}
		table.Add(round, "the list", report.Values{"rows": rows, "searched": searched})
	}
	p50 := table.Median("the list", "searched")
	b.outcomes[report.Dashboard] = report.AtMost(fmt.Sprintf("%s ms; rows after %s", report.Number(p50), report.Number(table.Median("the list", "rows"))),
		report.Bound{Value: p50, Milestone: 1000})
	return nil
}

// closeBrowser waits until nothing is left of it.
func closeBrowser(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, browserPatience)
	defer cancel()
	return chromedp.Cancel(ctx)
}

// logIn leaves the browser with a session, and with the parts of the page in its cache.
func logIn(ctx context.Context, base, token string) error {
	ctx, cancel := context.WithTimeout(ctx, browserPatience)
	defer cancel()
	return chromedp.Do(ctx, chromedp.Navigate(base+"/"), chromedp.SendKeys(chromedp.CSS("#token"), token+kb.Enter), chromedp.WaitVisible(chromedp.CSS("tbody tr")))
}

// list goes to the list and searches in it: how many milliseconds both took.
func list(ctx context.Context, base, name string) (rows, searched float64, err error) {
	ctx, cancel := context.WithTimeout(ctx, browserPatience)
	defer cancel()
	if err := chromedp.Do(ctx, chromedp.Navigate(base+"/")); err != nil {
		return 0, 0, err
	}
	took, err := chromedp.Run(ctx, chromedp.Evaluate[[2]float64](fmt.Sprintf("%s(%q)", search, name), chromedp.EvalAwaitPromise))
	return took[0], took[1], err
}
