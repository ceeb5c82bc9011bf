package registrations

import (
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/core-tools/hsu-master/store/records"
)

func TestWhatCannotBeRegistered(t *testing.T) {
	good := records.Registration{Service: "pkg.A", Address: "10.0.0.1:80"}
	for name, change := range map[string]func(*records.Registration){
		"no service":     func(r *records.Registration) { r.Service = "" },
		"a bad name":     func(r *records.Registration) { r.Service = "pkg/A" },
		"health":         func(r *records.Registration) { r.Service = "grpc.health.v1.Health" },
		"the core":       func(r *records.Registration) { r.Service = "proto.CoreService" },
		"the admin":      func(r *records.Registration) { r.Service = "hsu.master.admin.v1.Admin" },
		"no address":     func(r *records.Registration) { r.Address = "" },
		"no port":        func(r *records.Registration) { r.Address = "10.0.0.1" },
		"port 0":         func(r *records.Registration) { r.Address = "10.0.0.1:0" },
		"port 65536":     func(r *records.Registration) { r.Address = "10.0.0.1:65536" },
		"port 080":       func(r *records.Registration) { r.Address = "10.0.0.1:080" },
		"a named port":   func(r *records.Registration) { r.Address = "10.0.0.1:http" },
		"no host":        func(r *records.Registration) { r.Address = ":80" },
		"a blank":        func(r *records.Registration) { r.Address = "a b:80" },
		"nowhere":        func(r *records.Registration) { r.Address = "0.0.0.0:80" },
		"a short IP":     func(r *records.Registration) { r.Address = "127.1:80" },
		"an IP number":   func(r *records.Registration) { r.Address = "2130706433:80" },
		"a hex IP":       func(r *records.Registration) { r.Address = "0x7f.1:80" },
		"a hex number":   func(r *records.Registration) { r.Address = "0X7F000001:80" },
		"an octal IP":    func(r *records.Registration) { r.Address = "0177.0.0.1:80" },
		"an IP and dot":  func(r *records.Registration) { r.Address = "127.0.0.1.:80" },
		"a long name":    func(r *records.Registration) { r.Address = strings.Repeat("a.", 200) + "a:80" },
		"a long label":   func(r *records.Registration) { r.Address = strings.Repeat("a", 64) + ":80" },
		"a short ttl":    func(r *records.Registration) { r.TTL = time.Millisecond },
		"a negative ttl": func(r *records.Registration) { r.TTL = -time.Second },
		"a long ttl":     func(r *records.Registration) { r.TTL = 25 * time.Hour },
	} {
		r := good
		change(&r)
		if err := check(r); !errors.Is(err, ErrRegistration) {
			t.Errorf("%s: %v, want ErrRegistration", name, err)
		}
	}
	for _, address := range []string{
		"10.0.0.1:80", "[::1]:65535", "localhost:1", "host-1.example.org:443",
		"a_b:1", "host.:80", "1.example:1", "127.0.0.1.x:1", "0xyz:1",
	} {
		r := good
		r.Address = address
		if err := check(r); err != nil {
			t.Error(err)
		}
	}
}

func FuzzCheckAddress(f *testing.F) {
	for _, s := range []string{"10.0.0.1:80", "[::1]:80", "host:1", ":1", "[fe80::1%eth0]:1", "a:b:c", "\x00:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, address string) {
		if CheckAddress(address) != nil {
			return
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil || host == "" || port == "" ||
			strings.ContainsAny(address, " \t\n\x00\x1b") || len(address) > 512 {
			t.Errorf("%q is taken for an address", address)
		}
	})
}
