package config

import (
	"cmp"
	"net/url"
	"strconv"
	"strings"

	"github.com/pelletier/go-toml/v2/unstable"
)

const collectorHint = `such as "http://127.0.0.1:4318"; /v1/traces is added. Headers with keys for it are in the daemon's environment: OTEL_EXPORTER_OTLP_HEADERS`

var (
	collector = textKind("an address that begins with http:// or https://, without user, query and fragment", collectorHint, isCollector)
	part      = kind{
		what: "a number from 0 to 1", hint: "0.1 is one in ten",
		read: func(n *node, v *value) bool {
			if n.kind != unstable.Float && n.kind != unstable.Integer {
				return false
			}
			share, err := strconv.ParseFloat(strings.ReplaceAll(n.raw, "_", ""), 64)
			v.share = share
			return err == nil && 0 <= share && share <= 1 // and so no NaN
		},
	}
)

func isCollector(s string) bool { return isHTTP(s) && !strings.ContainsAny(s, "?#") }

// isHTTP accepts what the daemon can send to by itself.
func isHTTP(s string) bool {
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.User != nil || u.Hostname() == "" || u.Fragment != "" {
		return false
	}
	_, err = strconv.ParseUint(cmp.Or(u.Port(), "80"), 10, 16)
	return err == nil && !strings.ContainsFunc(s, notVisibleASCII)
}

// readTracing reads [settings.tracing].
func (d *draft) readTracing(v value) {
	t := Tracing{Sample: 1}
	said := d.walk([]key{
		{"", "endpoint", collector, func(_ *draft, v value) { t.Endpoint = strings.TrimRight(v.text, "/") }},
		{"", "sample", part, func(_ *draft, v value) { t.Sample = v.share }},
	}, "settings.tracing", v.node)
	if _, ok := said["endpoint"]; !ok {
		d.mistake(v.keyAt, collectorHint, "tracing has no endpoint")
	}
	d.config.Tracing = t
}
