package config

import (
	"fmt"
	"strings"
	"testing"

	"github.com/goccy/go-yaml/parser"
)

// manyUnits returns a file with n units such as people write.
func manyUnits(n int) string {
	var b strings.Builder
	b.WriteString("defaults:\n  log: {max_size: 20MiB, keep: 3}\n  restart: {policy: on-failure}\nunits:\n")
	for i := range n {
		fmt.Fprintf(&b, `  unit%d:
    kind: managed
    command: [./bin/serve, --listen, "127.0.0.1:{port}", --level, info]
    replicas: 2
    working_dir: data
    environment:
      LOG_LEVEL: info
      HOME: ${HOME}
    health: {type: http, url: "http://127.0.0.1:{port}/health", interval: 2s}
    stop: {grace: 30s}
    limits:
      memory: 512MiB
      open_files: 4096
`, i)
	}
	return b.String()
}

// BenchmarkLoad compares loading a file to parsing its text. A ratio above 1.5, or one that grows with the number of
// units, is a defect.
func BenchmarkLoad(b *testing.B) {
	for _, n := range []int{100, 1_000} {
		text := manyUnits(n)
		b.Run(fmt.Sprintf("load/%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, err := load(text); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(fmt.Sprintf("parser/%d", n), func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				if _, err := parser.ParseBytes([]byte(text), 0); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
