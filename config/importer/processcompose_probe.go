package importer

import (
	"errors"
	"strconv"
	"strings"

	"github.com/core-tools/hsu-master/config"
)

// probe returns the field of a probe. A readiness probe is our health check unless there is a liveness probe too:
// process-compose restarts a process that is not ready.
func (p *composed) probe(kind string) field {
	key := kind
	if kind == "readiness" && p.of.Get("liveness_probe") == nil {
		key = "health"
	}
	path := kind + "_probe"
	return func(t *config.Tree) error {
		if t.Kind != config.TreeMap {
			return errMap
		}
		b := p.unit.at(key)
		period, failures, delay := 10, 3, 0
		counted := func(at *int, take field) field {
			return func(t *config.Tree) error {
				if n, err := strconv.Atoi(t.Text); err == nil {
					*at = min(max(n, 0), 1_000_000)
				}
				return take(t)
			}
		}
		walk(b, compose, path+".", t, map[string]field{
			"exec":                  p.execProbe(b, path),
			"http_get":              func(t *config.Tree) error { return p.httpProbe(b, t) },
			"grpc":                  func(t *config.Tree) error { return p.grpcProbe(b, t) },
			"period_seconds":        counted(&period, inSeconds(b, "interval")),
			"timeout_seconds":       inSeconds(b, "timeout"),
			"failure_threshold":     counted(&failures, copied(b, "failures")),
			"success_threshold":     copied(b, "successes"),
			"initial_delay_seconds": counted(&delay, ignored),
		})
		if t.Get("period_seconds") == nil {
			b.set("interval", seconds(period))
		}
		if t.Get("timeout_seconds") == nil {
			b.set("timeout", "1s")
		}
		if delay > 0 {
			b.note("%s %s.initial_delay_seconds: %d: is part of start.timeout here: checks begin at once",
				compose, path, delay)
			p.unit.set("start.timeout", seconds(max(startTimeout, delay+period*failures)))
		}
		return nil
	}
}

func (p *composed) execProbe(b *block, path string) field {
	return nested(b, compose, path+".exec", map[string]field{
		"command": textField(func(s string) error {
			words, err := p.shellLine(s)
			if err != nil {
				return err
			}
			b.set("type", "exec")
			b.setList("command", words)
			return nil
		}),
	})
}

func (p *composed) httpProbe(b *block, t *config.Tree) error {
	parts := map[string]string{"scheme": "http", "host": "127.0.0.1", "port": "", "path": "/"}
	status := "200"
	fields := map[string]field{
		"status_code": textField(func(s string) error { status = s; return nil }),
		"num_port":    ignored,
		"headers": func(t *config.Tree) error {
			for _, e := range t.Entries {
				values, ok := texts(e.Value)
				if !ok || len(values) != 1 {
					return errors.New("must be a map of texts")
				}
				b.at("headers").named(e.Name, plainLiteral(values[0]))
			}
			return nil
		},
	}
	for name := range parts {
		fields[name] = textField(func(s string) error {
			expanded, err := p.expand(s, false)
			if err == nil && s != "" {
				parts[name] = expanded.argument()
			}
			return err
		})
	}
	walk(b, compose, "http_get.", t, fields)
	if parts["port"] != "" {
		parts["port"] = ":" + parts["port"]
	}
	if !strings.HasPrefix(parts["path"], "/") {
		parts["path"] = "/" + parts["path"]
	}
	b.set("type", "http")
	b.set("url", strings.ToLower(parts["scheme"])+"://"+parts["host"]+parts["port"]+parts["path"])
	b.setList("status", []string{status})
	return nil
}

func (p *composed) grpcProbe(b *block, t *config.Tree) error {
	host, port := "127.0.0.1", ""
	walk(b, compose, "grpc.", t, map[string]field{
		"host":    textField(func(s string) error { host = s; return nil }),
		"port":    textField(func(s string) error { port = s; return nil }),
		"service": copied(b, "service"),
	})
	b.set("type", "grpc")
	b.set("address", literal(host+":"+port).argument())
	return nil
}
