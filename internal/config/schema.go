package config

import (
	"time"

	"tenement"
)

// key is one row of the schema: a key that a section may have.
type key struct {
	section string
	name    string
	kind    kind
	apply   func(d *draft, v value) // nil: its feature comes later, so the key is refused
}

// The sections, as the schema names them.
const (
	inFile     = ""
	inSettings = "settings"
	inService  = "service.NAME"
	inRouting  = "routing"
)

// Bounds of whole numbers.
const (
	maxCount     = 1_000_000
	maxMillis    = 7 * 24 * 60 * 60 * 1000 // one week
	maxMegabytes = 1 << 20
	bytesPerMB   = 1 << 20
)

// Bounds of limits.
const (
	maxWeight = 10_000  // of cpu.weight and io.weight (cgroup-v2.rst)
	minCPU    = 0.01    // the kernel counts no less than a millisecond of a period of 100
	maxCPU    = 1024    // cores
	maxPIDs   = 1 << 22 // PID_MAX_LIMIT (proc_sys_kernel(5))
	minFiles  = 16      // with fewer, programs fail where nobody looks for the cause
	maxFiles  = 1 << 20 // fs.nr_open, unless it was raised (proc_sys_fs(5))
)

// sections are the keys of the file itself. It is a func because reading a section
// comes back here.
func sections() []key {
	return []key{
		{inFile, "settings", table, func(d *draft, v value) { d.settings = d.walk(settingsKeys(), "settings", v.node) }},
		{inFile, "service", recipes, (*draft).readServices},
		{inFile, "instances", table, func(d *draft, v value) { d.instances = v.node }},
		{inFile, "routing", table, func(d *draft, v value) { d.routing = d.walk(rowsOf(inRouting), "routing", v.node) }},
	}
}

// settingsKeys are the keys of [settings]; a func, as sections is.
func settingsKeys() []key {
	return append(rowsOf(inSettings),
		key{inSettings, "alerts", table, (*draft).readAlerts},
		key{inSettings, "tracing", table, (*draft).readTracing},
	)
}

// schema is every key of the sections whose keys are fixed. The other tables,
// [instances], [service.NAME.env], [routing.subdomain] and [routing.path], have
// keys that the operator makes up.
var schema = []key{
	{inSettings, "data_dir", directory, func(d *draft, v value) { d.config.DataDir = d.absolute(v.text) }},
	{inSettings, "domain", domainName, func(d *draft, v value) { d.config.Domain = v.text }},
	{inSettings, "listen", hostPort, func(d *draft, v value) { d.config.Listen = v.text }},
	{inSettings, "admin_host", hostName, func(d *draft, v value) { d.config.AdminHost = v.text }},
	{inSettings, "admin_listen", hostPort, func(d *draft, v value) { d.config.AdminListen = v.text }},
	{inSettings, "health_check_interval", longer, func(d *draft, v value) { d.interval = v.length }},
	{inSettings, "max_restarts", wholeKind(0, maxCount), func(d *draft, v value) { d.restart.Max = v.whole }},
	{inSettings, "restart_window", longer, func(d *draft, v value) { d.restart.Window = v.length }},
	{inSettings, "backoff_base_ms", wholeKind(0, maxMillis), func(d *draft, v value) { d.restart.BackoffBase = millis(v.whole) }},
	{inSettings, "backoff_max_ms", wholeKind(0, maxMillis), func(d *draft, v value) { d.restart.BackoffMax = millis(v.whole) }},
	{inSettings, "max_starting", wholeKind(0, maxCount), func(d *draft, v value) { d.config.MaxStarting = v.whole }},
	{inSettings, "max_waiting", wholeKind(1, maxCount), func(d *draft, v value) { d.config.MaxWaiting = v.whole }},
	{inSettings, "trusted_proxies", array, (*draft).readProxies},
	{inSettings, "log_instance_mb", wholeKind(1, maxMegabytes), func(d *draft, v value) { d.config.LogInstance = tenement.Bytes(v.whole) * bytesPerMB }},
	{inSettings, "log_total_mb", wholeKind(64, maxMegabytes), func(d *draft, v value) { d.config.LogTotal = tenement.Bytes(v.whole) * bytesPerMB }},
	{inSettings, "log_retention", longer, func(d *draft, v value) { d.config.LogRetention = v.length }},
	{inSettings, "uid_first", uidBlock, func(d *draft, v value) { d.config.FirstUID = v.whole }},
	{inSettings, "access_log", logFile, (*draft).readAccessLog},
	{inSettings, "max_awake", wholeKind(0, maxCount), func(d *draft, v value) { d.config.MaxAwake = v.whole }},
	{inSettings, "memory_reserve_mb", wholeKind(0, maxMegabytes), func(d *draft, v value) { d.config.MemoryReserve = tenement.Bytes(v.whole) * bytesPerMB }},

	{inService, "command", anyString, (*draft).readCommand},
	{inService, "args", array, (*draft).readArgs},
	{inService, "env", table, (*draft).readEnv},
	{inService, "workdir", directory, (*draft).readWorkdir},
	{inService, "health", healthPath, func(d *draft, v value) { d.service.Health.Path = v.text }},
	{inService, "isolation", isolation, func(d *draft, v value) { d.service.Isolation = tenement.Isolation(v.text) }},
	{inService, "freeze_timeout", length, func(d *draft, v value) { d.service.Timeouts.Freeze = v.length }},
	{inService, "idle_timeout", length, func(d *draft, v value) { d.service.Timeouts.Idle = v.length }},
	{inService, "startup_timeout", longer, func(d *draft, v value) { d.service.Timeouts.Startup = v.length }},
	{inService, "wake_timeout", longer, func(d *draft, v value) { d.service.Timeouts.Wake = v.length }},
	{inService, "request_timeout", length, func(d *draft, v value) { d.service.Timeouts.Request = v.length }},
	{inService, "drain_timeout", length, func(d *draft, v value) { d.service.Timeouts.Drain = v.length }},
	{inService, "stop_timeout", length, func(d *draft, v value) { d.service.Timeouts.Stop = v.length }},
	{inService, "restart", restart, func(d *draft, v value) { d.service.Restart.Mode = tenement.RestartMode(v.text) }},
	{inService, "create", create, func(d *draft, v value) { d.service.Create = tenement.CreateMode(v.text) }},
	{inService, "storage_persist", boolean, func(d *draft, v value) { d.service.Persist = v.flag }},
	{inService, "server_timing", boolean, func(d *draft, v value) { d.service.ServerTiming = v.flag }},
	{inService, "max_body_mb", wholeKind(0, maxMegabytes), func(d *draft, v value) { d.service.MaxBody = tenement.Bytes(v.whole) * bytesPerMB }},
	{inService, "storage_quota_mb", wholeKind(0, maxMegabytes), func(d *draft, v value) { d.service.Limits.Storage = tenement.Bytes(v.whole) * bytesPerMB }},
	{inService, "memory_limit_mb", limitKind(1, maxMegabytes), func(d *draft, v value) { d.service.Limits.Memory = tenement.Bytes(v.whole) * bytesPerMB }},
	{inService, "cpu_shares", limitKind(1, maxWeight), func(d *draft, v value) { d.service.Limits.CPUShares = v.whole }},
	{inService, "cpu_limit", shareKind(minCPU, maxCPU), func(d *draft, v value) { d.service.Limits.CPU = v.share }},
	{inService, "pids_limit", limitKind(1, maxPIDs), func(d *draft, v value) { d.service.Limits.PIDs = v.whole }},
	{inService, "io_weight", limitKind(1, maxWeight), func(d *draft, v value) { d.service.Limits.IOWeight = v.whole }},
	{inService, "open_files_limit", limitKind(minFiles, maxFiles), func(d *draft, v value) { d.service.Limits.OpenFiles = v.whole }},
	{inService, "listen", listen, func(d *draft, v value) { d.service.Listen = tenement.ListenMode(v.text) }},
	{inService, "ready", ready, func(d *draft, v value) { d.service.Ready = tenement.ReadyMode(v.text) }},
	{inService, "readable", array, func(d *draft, v value) { d.readPaths("readable", v, &d.service.Readable) }},
	{inService, "writable", array, func(d *draft, v value) { d.readPaths("writable", v, &d.service.Writable) }},
	{inService, "egress", egress, func(d *draft, v value) { d.service.Egress = tenement.Egress(v.text) }},
	{section: inService, name: "replica"},

	{inRouting, "default", anyString, later},
	{inRouting, "subdomain", table, later},
	{inRouting, "path", table, later},
}

var (
	isolation = oneOf(tenement.IsolationProcess, tenement.IsolationNamespace, tenement.IsolationSandbox)
	egress    = oneOf(tenement.EgressAllow, tenement.EgressDeny)
	listen    = oneOf(tenement.ListenPort, tenement.ListenFD)
	ready     = oneOf(tenement.ReadyProbe, tenement.ReadyNotify)
	restart   = oneOf(tenement.RestartAlways, tenement.RestartOnFailure, tenement.RestartNever)
	create    = oneOf(tenement.CreateExplicit, tenement.CreateOnRequest)
)

// later leaves a value to the checks that need every service to be known.
func later(*draft, value) {}

func millis(n int) time.Duration { return time.Duration(n) * time.Millisecond }

func rowsOf(section string) []key {
	if section == inFile {
		return sections()
	}
	var rows []key
	for _, row := range schema {
		if row.section == section {
			rows = append(rows, row)
		}
	}
	return rows
}
