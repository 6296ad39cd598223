package config

import (
	"strings"
	"time"
	_ "time/tzdata" // where the machine has none, as small containers do

	"github.com/netresearch/go-cron"

	"tenement"
)

// What a cron line has that does not say.
const (
	cronMethod  = "POST"
	cronZone    = "UTC"
	cronSpread  = 5 * time.Minute
	cronTimeout = time.Hour
)

// cronParser reads the five fields of crontab(5), day of month or day of week, and names such
// as @daily.
var cronParser = cron.MustNewParser(cron.Minute | cron.Hour | cron.Dom | cron.Month | cron.Dow | cron.DowOrDom | cron.Descriptor)

const cronHint = `minute, hour, day of month, month and day of week, such as "0 3 * * *" or "*/15 8-18 * * 1-5"; or @hourly, @daily, @weekly, @monthly`

var (
	cronLine = kind{what: "a table", hint: `such as nightly = { schedule = "0 3 * * *", path = "/jobs/nightly" }`, read: isTable}
	schedule = textKind("a time in the form of crontab(5)", cronHint, func(s string) bool { return s != "" })
	askPath  = textKind(`a path that begins with "/"`, "", isRequestPath)
	timeZone = textKind("a time zone of the IANA database", `such as "Europe/Berlin"; the default is "UTC"`, isZone)
)

// isZone accepts what means the same on every machine: not "Local", nor a path.
func isZone(s string) bool {
	_, err := time.LoadLocation(s)
	return err == nil && s != "" && s != "Local"
}

// readCron reads [service.NAME.cron].
func (d *draft) readCron(v value) {
	d.service.Cron = d.cronLines("service."+shorten(d.service.Name)+".cron", v.node)
}

// cronLines reads one line for each name in a table, which messages call label.
func (d *draft) cronLines(label string, n *node) (lines []tenement.CronLine) {
	for _, item := range n.items {
		if !tenement.ValidInstanceName(item.key) {
			d.mistake(item.keyAt, "1 to 63 of a-z, 0-9, - and _, beginning and ending with a letter or digit", "%s is not a valid name of a cron line", quote(item.key))
		}
		if _, ok := d.accept(cronLine, "cron."+shorten(item.key), item); ok {
			lines = append(lines, d.cronLine(label+"."+shorten(item.key), item))
		}
	}
	return lines
}

func (d *draft) cronLine(label string, n *node) tenement.CronLine {
	line := tenement.CronLine{Name: n.key, Zone: cronZone, Method: cronMethod, Spread: cronSpread, Timeout: cronTimeout}
	rows := []key{
		{"", "schedule", schedule, func(_ *draft, v value) { line.Schedule = v.text }},
		{"", "path", askPath, func(_ *draft, v value) { line.Path = v.text }},
		{"", "method", methodName, func(_ *draft, v value) { line.Method = v.text }},
		{"", "timezone", timeZone, func(_ *draft, v value) { line.Zone = v.text }},
		{"", "spread", length, func(_ *draft, v value) { line.Spread = v.length }},
		{"", "timeout", longer, func(_ *draft, v value) { line.Timeout = v.length }},
	}
	said := d.walk(rows, label, n)
	for _, name := range []string{"schedule", "path"} {
		if _, ok := said[name]; !ok {
			d.mistake(n.keyAt, cronLine.hint, "cron line %s has no %s", quote(n.key), name)
		}
	}
	if at := said["schedule"]; at != nil {
		line.Times = d.readTimes(at, line.Zone)
	}
	return line
}

// readTimes reads a schedule, or notes why it cannot be.
func (d *draft) readTimes(n *node, zone string) tenement.Times {
	text := strings.TrimSpace(n.text)
	if strings.Contains(text, "=") || strings.HasPrefix(text, "@every") { // which the parser would take
		d.mistake(n.at, cronHint+`; the zone is a key of its own, timezone`, "schedule must be a time in the form of crontab(5), not %s", n.shown())
		return nil
	}
	times, err := cronParser.Parse("CRON_TZ=" + zone + " " + text)
	switch {
	case err != nil:
		d.mistake(n.at, cronHint, "schedule: %v", err)
		return nil
	case times.Next(time.Unix(0, 0)).IsZero():
		d.mistake(n.at, cronHint, "schedule %s never comes", quote(text))
		return nil
	}
	return times
}
