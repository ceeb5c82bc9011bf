package config

// otherNames are names that other process managers have for keys.
var otherNames = map[string]string{
	"after": "depends_on", "apps": "units", "args": "command", "autorestart": "restart", "autostart": "enabled",
	"chdir": "working_dir", "cmd": "command", "cpus": "limits.cpu", "cron": "schedule", "cwd": "working_dir",
	"dir": "working_dir", "directory": "working_dir", "entrypoint": "command", "env": "environment",
	"every": "interval", "exec": "command", "files": "keep",
	"health_check": "health", "healthcheck": "health", "instances": "replicas", "kill_timeout": "stop.grace",
	"max_memory_restart": "memory_restart", "mem_limit": "limits.memory", "numprocs": "replicas",
	"processes": "units", "programs": "units", "requires": "depends_on", "script": "command", "services": "units",
	"startsecs": "start.settle", "stop_grace_period": "stop.grace", "stop_signal": "stop.signal",
	"stopsignal": "stop.signal", "stopwaitsecs": "stop.grace", "workdir": "working_dir", "workers": "replicas",
}

// otherWords are words that people write for those of a key.
var otherWords = map[string]string{
	"yes": "always", "true": "always", "on": "always", "unless-stopped": "always",
	"no": "never", "false": "never", "off": "never", "unexpected": "on-failure",

	"healthy": "ready", "service_healthy": "ready", "service_started": "started",
	"process_healthy": "ready", "process_started": "started",
	"service_completed_successfully": "completed", "process_completed_successfully": "completed",

	"stdout": "inherit", "stderr": "inherit", "syslog": "journal", "journald": "journal",

	"service": "managed", "daemon": "managed", "process": "managed", "program": "managed", "simple": "managed",
	"oneshot": "managed", "cron": "managed", "job": "managed", "grpc": "integrated", "external": "unmanaged",
}
