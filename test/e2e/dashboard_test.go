package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

const rows = `document.querySelectorAll("tbody tr").length`

// TestDashboard walks through the dashboard as an operator does.
func TestDashboard(t *testing.T) {
	t.Parallel()
	d := start(t, "notes")
	b := d.browse()
	d.command("spawn", "notes:alice", "--no-wake")
	d.command("spawn", "notes:bob", "--no-wake")
	token := strings.TrimSpace(d.command("token-gen"))

	b.open("/events", `document.querySelector("#token")`)
	b.wantAccessible("login")
	b.run("guess", chromedp.SendKeys(chromedp.CSS("#token"), "guess"+kb.Enter))
	b.until(says("[role=alert]", "not a token"))
	b.wantAccessible("login-refused")
	b.run("log in", chromedp.SendKeys(chromedp.CSS("#token"), token+kb.Enter))
	b.until(`location.pathname == "/events" && ` + says("h1", "Events")) // where one wanted to go
	b.until(says("tbody tr", "token-create"))
	b.wantAccessible("events")

	b.press("Log out")
	b.until(`location.pathname == "/login"`)
	b.logIn(token)
	b.until(rows + " == 2")
	b.run("search by keyboard", pressKey('/'))
	b.until(`document.activeElement.id == "text"`)
	b.typeInto("#text", "bo")
	b.until(rows + ` == 1 && ` + says("tbody tr", "bob"))
	b.until(`location.search == "?text=bo"`)
	b.typeInto("#text", "nobody")
	b.until(says(".empty", "Nothing matches"))
	b.open("/", rows+" == 2")
	b.wantAccessible("instances")
	b.run("follow a link", chromedp.Click(chromedp.CSS(`a[href="/instances/notes:alice"]`)))
	b.until(says(".title .state", "asleep"))
	b.until(`document.activeElement.tagName == "H1"`)

	b.press("Wake")
	b.until(says(".title .state", "ready"))
	b.until(says(".log", "notes listens on"))
	b.until(says(".waterfall tbody tr", "operator"))
	b.until(`document.querySelector("rect[data-state=ready]")`)
	b.wantAccessible("instance")
	b.typeInto("#log-search", "listens")
	b.until(says(".log mark", "listens"))
	b.typeInto("#log-search", "nothing-like-this")
	b.until(says(".log", "No line matches"))

	b.press("Suspend")
	b.until(`document.querySelector("dialog[open]") && document.querySelector("dialog").contains(document.activeElement)`)
	b.wantAccessible("confirmation")
	b.run("no", chromedp.KeyEvent(kb.Escape))
	b.until(`!document.querySelector("dialog") && ` + says(".title .state", "ready"))
	b.press("Suspend")
	b.run("yes", chromedp.Click(chromedp.CSS("dialog button.danger")))
	b.until(says(".title .state", "suspended"))
	b.until(says("tbody tr", "suspend"))
	b.press("Resume")
	b.until(says(".title .state", "asleep"))
	b.wantNoTroubles()
}

// TestDashboardByKeyboard wakes an instance, and puts it to sleep, without a pointer.
func TestDashboardByKeyboard(t *testing.T) {
	t.Parallel()
	d := start(t, "notes")
	b := d.browse()
	d.command("spawn", "notes:alice", "--no-wake")
	b.logIn(strings.TrimSpace(d.command("token-gen")))
	b.until(rows + " == 1")
	b.tabTo(`.matches(".skip")`)
	b.tabTo(`.matches("nav a[href='/events']")`)
	b.run("follow the link", chromedp.KeyEvent(kb.Enter))
	b.until(says("h1", "Events"))
	b.run("go back", chromedp.NavigateBack())
	b.until(rows + " == 1")
	b.tabTo(`.innerText.startsWith("Wake")`)
	b.run("press it", chromedp.KeyEvent(kb.Enter))
	b.until(says("tbody .state", "ready"))
	b.tabTo(`.innerText.startsWith("Sleep")`)
	b.run("press it", chromedp.KeyEvent(" "))
	b.until(says("tbody .state", "asleep"))
	b.wantNoTroubles()
}

// TestDashboardOverTime shows what instances did: wakes, plots, usage, and what all print.
func TestDashboardOverTime(t *testing.T) {
	t.Parallel()
	d := start(t, "notes")
	b := d.browse()
	d.command("spawn", "notes:alice", "--no-wake")
	d.command("spawn", "notes:bob", "--no-wake")
	for range 20 {
		d.get(http.StatusOK, "alice.notes.localhost", "/notes")
	}
	b.logIn(strings.TrimSpace(d.command("token-gen")))
	b.until(rows + " == 2")
	b.open("/instances/notes:alice", says(".title .state", "ready"))
	b.until(`document.querySelectorAll(".uplot canvas").length == 4`) // the first sample comes after 15 s
	b.until(says(".series", "used") + ` && document.querySelector(".waterfall rect[data-phase=ready_ms]")`)
	b.press("Check")
	b.until(says(".notice", "notes:alice is healthy"))
	b.wantAccessible("instance-plots")

	b.open("/wakes", says(".waterfall tbody tr", "notes:alice"))
	b.until(says(".waterfall .outcome", "ok"))
	b.wantAccessible("wakes")
	b.open("/logs", says(".log .source", "notes:alice"))
	b.wantAccessible("logs")
	b.open("/usage", says("tbody tr", "notes:alice"))
	b.until(says(".tile", "Requests"))
	b.wantAccessible("usage")
	b.open("/box", `document.querySelectorAll(".uplot canvas").length == 6`)
	b.wantAccessible("box")

	b.open("/", rows+" == 2")
	b.press("Deploy")
	b.typeInto("#deploy-version", "bob")
	b.run("deploy it", chromedp.Click(chromedp.CSS("dialog button.primary")))
	b.until(says(".notice", "notes:bob is healthy"))
	b.until(says("tbody tr", "100"))
	b.wantNoTroubles()
}

// TestDashboardOfTheMachine has the pages that only those see who see everything.
func TestDashboardOfTheMachine(t *testing.T) {
	t.Parallel()
	d := start(t, "notes")
	b := d.browse()
	d.command("spawn", "notes:alice", "--no-wake")
	b.logIn(strings.TrimSpace(d.command("token-gen")))
	b.until(rows + " == 1")
	b.wantAccessible("instances")

	b.open("/box", says(".tile", "Memory"))
	b.wantAccessible("box-at-first")
	b.open("/tokens", rows+" == 1")
	b.press("New token")
	b.until(`document.querySelector("dialog[open]")`)
	b.wantAccessible("new-token")
	b.typeInto("#token-name", "ci")
	b.run("make it", chromedp.Click(chromedp.CSS("dialog button.primary")))
	b.until(`/^ten_/.test(document.querySelector("#secret")?.value)`)
	b.wantAccessible("tokens")
	b.until(rows + " == 2")

	b.open("/instances/notes:alice", says(".title .state", "asleep"))
	b.press("Set a variable")
	b.typeInto("#variable-name", "PLAN")
	b.typeInto("#variable-value", "pro")
	b.run("set it", chromedp.Click(chromedp.CSS("dialog button.primary")))
	b.until(says("tbody tr", "PLAN"))
	b.press("Delete")
	b.typeInto("#sure", "notes:alice")
	b.run("delete it", chromedp.Click(chromedp.CSS("dialog button.danger")))
	b.until(`location.pathname == "/" && ` + says(".empty", "No instance"))
	b.wantNoTroubles()
}

// TestDashboardOfATenant shows what is theirs, on a telephone.
func TestDashboardOfATenant(t *testing.T) {
	t.Parallel()
	d := start(t, "notes")
	b := d.browse()
	d.command("spawn", "notes:alice", "--no-wake")
	d.command("spawn", "notes:bob", "--no-wake")
	b.run("take a telephone", chromedp.EmulateViewport(390, 844, chromedp.EmulateMobile))
	b.logIn(strings.TrimSpace(d.command("token-gen", "--tenant", "alice")))
	b.until(rows + " == 1 && " + says("tbody tr", "alice"))
	b.wantAccessible("tenant-phone")
	for path, wanted := range map[string]string{
		"/": rows + " == 1", "/wakes": says("h1", "Wakes"), "/logs": says("h1", "Logs"), "/usage": says("h1", "Usage"), "/instances/notes:alice": says(".title .state", "asleep"), "/events": says("h1", "Events"),
		"/instances/notes:bob": says(".empty", "not yours"), "/tokens": says(".empty", "no such page"), "/box": says(".empty", "no such page"),
	} {
		b.open(path, wanted)
		if wide, err := evaluate[bool](b.ctx, `document.documentElement.scrollWidth > innerWidth`); err != nil || wide {
			t.Errorf("%s is wider than the telephone", path)
			b.shoot("wide")
		}
	}
	b.open("/instances/notes:alice", says(".title .state", "asleep"))
	b.press("Wake")
	b.until(says(".title .state", "ready"))
	b.wantAccessible("tenant-instance-phone")
	if text := b.text(); strings.Contains(text, "Suspend") || strings.Contains(text, "Delete") {
		t.Errorf("a tenant is offered what it may not do: %s", text)
	}
	b.wantNoTroubles()
}
