package registrations

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// ErrRegistration means that the service, address or ttl cannot be registered.
var ErrRegistration = errors.New("not registered")

// The minimum and the maximum ttl.
const (
	minTTL = time.Second
	maxTTL = 24 * time.Hour
)

// Check returns an error if the service, address or ttl cannot be registered.
func Check(service, address string, ttl time.Duration) error {
	return check(records.Registration{Service: service, Address: address, TTL: ttl})
}

func check(r records.Registration) error {
	if err := services.CheckName(r.Service); err != nil {
		return fmt.Errorf("%w: %w", ErrRegistration, err)
	}
	if services.Infrastructure(r.Service) {
		return fmt.Errorf("%w: the master answers %s itself", ErrRegistration, r.Service)
	}
	if err := CheckAddress(r.Address); err != nil {
		return fmt.Errorf("%w: %w", ErrRegistration, err)
	}
	if r.TTL != 0 && (r.TTL < minTTL || r.TTL > maxTTL) {
		return fmt.Errorf("%w: ttl %s: must be %s to %s, or 0 for an endpoint that sends no heartbeats",
			ErrRegistration, r.TTL, minTTL, fmt.Sprintf("%gh", maxTTL.Hours()))
	}
	return nil
}

// maxHost limits the length of a host name, as DNS does.
const maxHost = 253

// CheckAddress returns an error if address cannot be registered.
func CheckAddress(address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("address %.300q: must be HOST:PORT such as 10.0.0.7:8080", address)
	}
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 || strconv.Itoa(n) != port {
		return fmt.Errorf("address %.300q: must be a port from 1 to 65535", address)
	}
	if net.ParseIP(host) == nil && !hostName(host) {
		return fmt.Errorf("address %.300q: must be the name of a host or an IP address before the port", address)
	}
	if ip := net.ParseIP(host); ip != nil && (ip.IsUnspecified() || ip.IsMulticast()) {
		return fmt.Errorf("address %.300q: nobody can be reached there: name the host's own address", address)
	}
	return nil
}

func hostName(host string) bool {
	if len(host) > maxHost {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(strings.TrimSuffix(host, "."), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_") != "" {
			return false
		}
		last = label
	}
	return !number(last)
}

// number reports whether the resolver takes a name that ends in this label for an IP address in one of the old
// spellings of inet_aton(3), such as 127.1, 2130706433 or 0x7f.1: such a name could hide the gateway's own address.
func number(label string) bool {
	hex, ok := strings.CutPrefix(strings.ToLower(label), "0x")
	if ok {
		return strings.Trim(hex, "0123456789abcdef") == ""
	}
	return strings.Trim(label, "0123456789") == ""
}
