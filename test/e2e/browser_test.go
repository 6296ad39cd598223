package e2e

import (
	"context"
	_ "embed"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// axe finds what keeps people from using a page (https://github.com/dequelabs/axe-core).
//
//go:embed testdata/axe.min.js
var axe string

// browserTimeout is for one step in the browser, on a machine that is busy with
// everything else.
const browserTimeout = 2 * time.Minute

// browser is a tab of a Chromium that shows a daemon's dashboard. It is in the network of
// the tests, which has nothing but this machine: what a page wants from elsewhere fails.
type browser struct {
	t    *testing.T
	ctx  context.Context
	base string

	mu       sync.Mutex
	troubles []string // what the browser complained of
}

func (d *daemon) browse() *browser {
	d.t.Helper()
	require(d.t, "chromium", "install it (Debian: apt-get install chromium)")
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath("chromium"), chromedp.NoSandbox, // its sandbox is not for root
		chromedp.Flag("disable-dev-shm-usage", true), chromedp.WindowSize(1280, 900),
		chromedp.WSURLReadTimeout(browserTimeout))
	ctx, cancel := chromedp.NewExecAllocator(context.WithoutCancel(d.t.Context()), options...)
	d.t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	d.t.Cleanup(cancel)
	b := &browser{t: d.t, ctx: ctx, base: "http://localhost:" + d.port()}
	_, err := chromedp.Call(ctx, log.Enable, cdp.Empty{}) // the browser ends with the context of this one
	if err == nil {
		err = chromedp.Listen(ctx, b.listen)
	}
	if err != nil {
		d.t.Fatalf("open the browser: %v", err)
	}
	return b
}

// listen notes mistakes of our scripts and what the policy kept from working.
func (b *browser) listen(event any) {
	trouble := ""
	switch e := event.(type) {
	case *runtime.EventExceptionThrown:
		trouble = e.ExceptionDetails.Text
		if thrown := e.ExceptionDetails.Exception; thrown != nil {
			trouble += ": " + thrown.Description
		}
	case *log.EventEntryAdded:
		// A refusal of the API is not one of ours: 401 before the log-in is meant.
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			trouble = e.Entry.Text
		}
	}
	if trouble != "" {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.troubles = append(b.troubles, trouble)
	}
}

func (b *browser) wantNoTroubles() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, trouble := range b.troubles {
		b.t.Errorf("the browser says: %s", trouble)
	}
}

func (b *browser) run(what string, actions ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, browserTimeout)
	defer cancel()
	if err := chromedp.Do(ctx, actions...); err != nil {
		b.shoot("failed")
		b.wantNoTroubles()
		b.t.Fatalf("%s: %v; the page says: %s", what, err, b.text())
	}
}

// evaluate is the value of a JavaScript expression, or of what it promises.
func evaluate[T any](ctx context.Context, expression string) (T, error) {
	return chromedp.Run(ctx, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
}

// text is what the page shows.
func (b *browser) text() string {
	ctx, cancel := context.WithTimeout(b.ctx, 5*time.Second)
	defer cancel()
	text, err := evaluate[string](ctx, `location.pathname + " " + document.body.innerText`)
	if err != nil {
		return err.Error()
	}
	return text
}

// shoot leaves a picture of the page with the test's artefacts.
func (b *browser) shoot(name string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, 30*time.Second)
	defer cancel()
	picture, err := chromedp.Run(ctx, chromedp.FullScreenshot(100))
	if err != nil {
		b.t.Logf("no picture of %s: %v", name, err)
		return
	}
	if err := os.WriteFile(filepath.Join(b.t.ArtifactDir(), name+".png"), picture, 0o644); err != nil {
		b.t.Error(err)
	}
}

// open goes to a path of the dashboard and waits for what must be there.
func (b *browser) open(path, wanted string) {
	b.t.Helper()
	b.run("open "+path, chromedp.Navigate(b.base+path))
	b.until(wanted)
}

// until waits for a condition of the page, a JavaScript expression.
func (b *browser) until(condition string) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, browserTimeout)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		// Between two pages there is nothing that could answer.
		if holds, err := evaluate[bool](ctx, "Boolean("+condition+")"); err == nil && holds {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			b.shoot("failed")
			b.wantNoTroubles()
			b.t.Fatalf("it never holds: %s; the page says: %s", condition, b.text())
		}
	}
}

// says is the condition that an element's text has something in it.
func says(selector, text string) string {
	return fmt.Sprintf(`[...document.querySelectorAll(%q)].some((e) => e.innerText.includes(%q))`, selector, text)
}

// press clicks on the button whose text begins so.
func (b *browser) press(text string) {
	b.t.Helper()
	path := fmt.Sprintf(`//button[starts-with(normalize-space(.), %q)]`, text)
	b.run("press "+text, chromedp.Click(path, chromedp.NodeVisible))
}

func (b *browser) typeInto(selector, text string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`((e) => e && (e.value = "", true))(document.querySelector(%q))`, selector))
	b.run("type into "+selector, chromedp.SendKeys(chromedp.CSS(selector), text))
}

// pressKey presses a key that the page has a use for. chromedp.KeyEvent sends the character
// as well, which a browser does not do once the page has prevented that.
func pressKey(key rune) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		for _, event := range kb.Encode(key) {
			if event.Type == kb.KeyChar {
				continue
			}
			if _, err := cdp.Call(ctx, t, input.DispatchKeyEvent, *event); err != nil {
				return err
			}
		}
		return nil
	})
}

// wantAccessible has axe look at the page as it is, in light and in dark, and leaves
// pictures of both.
func (b *browser) wantAccessible(name string) {
	b.t.Helper()
	for _, scheme := range []string{"dark", "light"} {
		b.see(scheme)
		for _, v := range b.violations() {
			b.t.Errorf("%s in %s: %v", name, scheme, v)
		}
		b.shoot(name + "-" + scheme)
	}
}

// violations are what axe finds.
func (b *browser) violations() (list []any) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, browserTimeout)
	defer cancel()
	report, err := evaluate[string](ctx, axe+`;
		axe.run(document).then((r) => JSON.stringify(r.violations.map((v) => [v.id, v.nodes.map((n) => n.html + ": " + n.failureSummary)])))`)
	if err != nil {
		b.t.Fatalf("axe: %v", err)
	}
	if err := json.Unmarshal([]byte(report), &list); err != nil {
		b.t.Fatalf("axe says %q: %v", report, err)
	}
	return list
}

// see has pages be shown as to somebody who likes them dark or light, and nothing that moves:
// half-way between two colours no contrast counts.
func (b *browser) see(scheme string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{
			{Name: "prefers-color-scheme", Value: scheme}, {Name: "prefers-reduced-motion", Value: "reduce"},
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
}

func (b *browser) logIn(token string) {
	b.t.Helper()
	b.open("/", `document.querySelector("#token")`) // led there
	b.run("log in", chromedp.SendKeys(chromedp.CSS("#token"), token+kb.Enter))
}

// tabTo presses Tab until the condition holds for what has the focus.
func (b *browser) tabTo(condition string) {
	b.t.Helper()
	for range 40 {
		b.run("press Tab", chromedp.KeyEvent(kb.Tab))
		if holds, err := evaluate[bool](b.ctx, "document.activeElement"+condition); err == nil && holds {
			return
		}
	}
	b.shoot("failed")
	b.t.Fatalf("Tab does not lead to what is%s; the page says: %s", condition, b.text())
}
