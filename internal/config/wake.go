package config

import (
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"

	"tenement"
)

// The requests that wake nobody unless a service says otherwise. A list that a service
// gives takes the place of the default one, which the word "defaults" in it stands for.
var (
	// What browsers ask for by themselves, and what those ask for who try every host for
	// weaknesses. A path is here only if hardly any application has it.
	ignoredPaths = []string{
		"/favicon.ico", "/robots.txt", "/apple-touch-icon.png", "/apple-touch-icon-precomposed.png",
		"/.env", "/.env.*", "/.git/*", "/.svn/*", "/.hg/*", "/.aws/*", "/.ssh/*", "/.DS_Store", "/.vscode/*",
		"/wp-login.php", "/wp-admin/*", "/wp-includes/*", "/xmlrpc.php", "/phpmyadmin/*", "/phpMyAdmin/*", "/phpinfo.php",
		"/vendor/phpunit/*", "/cgi-bin/*", "/_ignition/*", "/boaform/*", "/HNAP1", "/HNAP1/*",
	}

	// Crawlers of search engines, of sellers of statistics and of language models, and
	// scanners of the whole net. Those who fetch a page because a person just shared or
	// opened a link are not here.
	ignoredAgents = []string{
		"googlebot", "bingbot", "yandexbot", "baiduspider", "duckduckbot", "applebot", "petalbot", "amazonbot", "sogou", "yisouspider", "seznambot", "qwantbot",
		"ahrefsbot", "semrushbot", "mj12bot", "dotbot", "dataforseobot", "blexbot", "barkrowler", "serpstatbot", "seokicks", "sistrix", "megaindex",
		"gptbot", "claudebot", "ccbot", "bytespider", "meta-externalagent", "perplexitybot", "imagesiftbot", "diffbot", "timpibot",
		"censysinspect", "expanse, a palo alto", "internetmeasurement", "internet-measurement", "leakix", "l9explore", "l9tcpid", "netsystemsresearch", "odin; https://docs.getodin.com",
		"zgrab", "masscan", "nmap scripting engine", "nuclei", "nikto", "sqlmap", "wpscan", "gobuster", "dirbuster", "feroxbuster", "fuzz faster u fool",
	}

	// Services and programs that ask at intervals whether a site is up.
	monitors = []string{
		"uptimerobot", "pingdom", "statuscake", "better stack", "better uptime", "betteruptime", "site24x7", "hetrixtools", "uptime-kuma", "updown.io", "freshping",
		"datadogsynthetics", "datadog/synthetics", "newrelicpinger", "googlestackdrivermonitoring-uptimechecks", "cloudflare-healthchecks", "amazon-route53-health-check-service",
		"elb-healthchecker", "googlehc", "kube-probe", "blackbox exporter", "blackbox-exporter", "checkly", "gatus", "oh dear", "cronitor", "nodeping", "monitis", "check_http", "consul health check",
	}
)

// defaultWake are the rules of a service that says nothing.
func defaultWake() tenement.WakeRules {
	return tenement.WakeRules{Paths: ignoredPaths, UserAgents: ignoredAgents, Monitors: monitors, Methods: []string{}, Self: true}
}

// defaultsWord stands for the default list where it is an element of one.
const defaultsWord = "defaults"

var (
	ignoring = kind{
		what: "a table or false", hint: `such as { paths = ["/favicon.ico"] }; false = every request wakes it`,
		read: func(n *node, v *value) bool {
			return n.kind == unstable.Table || readBoolean(n, v) && !v.flag
		},
	}
	ignoredPath = textKind(`a path that begins with "/", has no query, and has * only at its end`, `"/old/*" stands for all that begins like it, "defaults" for the default list`,
		func(s string) bool {
			return s == defaultsWord || isRequestPath(s) && !strings.Contains(s, "?") && !strings.Contains(strings.TrimSuffix(s, "*"), "*")
		})
	agentPart = textKind("a part of a User-Agent, of 3 to 100 characters", `"defaults" stands for the default list`,
		func(s string) bool { return len(s) >= 3 && len(s) <= 100 && !strings.ContainsFunc(s, notText) })
	methodName = textKind("a method in capital letters", `such as "OPTIONS"`,
		func(s string) bool { return s != "" && strings.Trim(s, "ABCDEFGHIJKLMNOPQRSTUVWXYZ-") == "" })
)

func notText(r rune) bool { return r < ' ' || r > '~' }

// serviceKeys are the keys of [service.NAME]; a func, as sections is.
func serviceKeys() []key {
	return append(rowsOf(inService),
		key{inService, "wake", table, (*draft).readWake},
		key{inService, "cron", table, (*draft).readCron},
	)
}

// wakeKeys are the keys of [service.NAME.wake].
func wakeKeys() []key {
	return []key{
		{"", "ignore", ignoring, (*draft).readIgnore},
		{"", "self", boolean, func(d *draft, v value) { d.service.Wake.Self = v.flag }},
		{"", "health", boolean, func(d *draft, v value) { d.service.Wake.Health = v.flag }},
	}
}

// ignoreKeys are the keys of [service.NAME.wake.ignore].
func ignoreKeys() []key {
	list := func(name string, k kind, standard []string, of func(*tenement.WakeRules) *[]string) key {
		return key{"", name, array, func(d *draft, v value) {
			*of(&d.service.Wake) = d.readIgnored(name, v, k, standard)
		}}
	}
	return []key{
		list("paths", ignoredPath, ignoredPaths, func(w *tenement.WakeRules) *[]string { return &w.Paths }),
		list("user_agents", agentPart, ignoredAgents, func(w *tenement.WakeRules) *[]string { return &w.UserAgents }),
		list("monitors", agentPart, monitors, func(w *tenement.WakeRules) *[]string { return &w.Monitors }),
		list("methods", methodName, nil, func(w *tenement.WakeRules) *[]string { return &w.Methods }),
	}
}

func (d *draft) readWake(v value) {
	d.walk(wakeKeys(), "service."+shorten(d.service.Name)+".wake", v.node)
}

func (d *draft) readIgnore(v value) {
	if v.kind != unstable.Table { // false
		w := &d.service.Wake
		w.Paths, w.UserAgents, w.Monitors, w.Methods = []string{}, []string{}, []string{}, []string{}
		return
	}
	d.walk(ignoreKeys(), "service."+shorten(d.service.Name)+".wake.ignore", v.node)
}

func (d *draft) readIgnored(name string, v value, k kind, standard []string) []string {
	list := []string{}
	for _, item := range v.items {
		v, ok := d.accept(k, "an element of "+name, item)
		switch {
		case !ok:
		case v.text == defaultsWord:
			list = append(list, standard...)
		case name == "user_agents" || name == "monitors":
			list = append(list, strings.ToLower(v.text))
		default:
			list = append(list, v.text)
		}
	}
	return list
}
