package config

import (
	"slices"

	"tenement"
)

// Alerts says who is told by a webhook that something goes wrong.
type Alerts struct {
	URL        string // http or https; "" = nobody is told
	SecretFile string // absolute; holds what the messages are signed with
	On         []tenement.AlertKind
	DiskLow    tenement.Bytes // less than this available on the disk of DataDir is AlertDiskLow; > 0
}

// defaultDiskLow is what an operator needs to do something about a disk that fills up.
const defaultDiskLow = 1024 * bytesPerMB

func defaultAlerts() Alerts {
	return Alerts{On: slices.Clone(tenement.AlertKinds), DiskLow: defaultDiskLow}
}

var (
	webhookURL = textKind("a URL with http or https and a host, without user and password", `such as "https://alerts.example.com/tenement"`, isHTTP)
	secretFile = textKind("the path of a file", `such as "/etc/tenement/alerts.secret"`, isDirectory)
	alertKind  = oneOf(tenement.AlertKinds...)
)

// alertKeys are the keys of [settings.alerts].
func alertKeys() []key {
	return []key{
		{"", "url", webhookURL, func(d *draft, v value) { d.config.Alerts.URL = v.text }},
		{"", "secret_file", secretFile, func(d *draft, v value) { d.config.Alerts.SecretFile = d.absolute(v.text) }},
		{"", "on", array, (*draft).readAlertKinds},
		{"", "disk_low_mb", wholeKind(1, maxMegabytes), func(d *draft, v value) { d.config.Alerts.DiskLow = tenement.Bytes(v.whole) * bytesPerMB }},
	}
}

func (d *draft) readAlerts(v value) {
	said := d.walk(alertKeys(), "settings.alerts", v.node)
	for _, needed := range []struct{ name, hint string }{
		{"url", webhookURL.hint},
		{"secret_file", "messages are signed with what is in it; docs/operations.md says how to make it"},
	} {
		if _, ok := said[needed.name]; !ok {
			d.mistake(v.keyAt, needed.hint, "[settings.alerts] has no %s", needed.name)
		}
	}
}

func (d *draft) readAlertKinds(v value) {
	d.config.Alerts.On = []tenement.AlertKind{}
	for _, item := range v.items {
		if v, ok := d.accept(alertKind, "an element of on", item); ok {
			d.config.Alerts.On = append(d.config.Alerts.On, tenement.AlertKind(v.text))
		}
	}
}
