package worker

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/store/records"
	"github.com/core-tools/hsu-master/supervisor/launcher"
	"github.com/core-tools/hsu-master/supervisor/process"
)

// How often the port of a starting worker that chooses it itself is searched for: at first, later after a share of the
// time that the start has taken, and at most.
const (
	firstSearch = 10 * time.Millisecond
	mostSearch  = 250 * time.Millisecond
)

// errPortChanged ends the wait for a worker on a port that is not the only one of the worker any more.
var errPortChanged = errors.New("the worker has another port")

// unclearPortError is the reason why the port of a worker is not known.
type unclearPortError string

func (e unclearPortError) Error() string { return string(e) }

// waitOwnPort is wait for a worker that chooses its port itself. A worker may open several ports one after another, so
// the search begins again if the port is not the only one any more, or another one is published.
func (r startWait) waitOwnPort(ctx context.Context) (Link, int, error) {
	for {
		port, err := r.searchPort(ctx)
		if err != nil {
			return nil, 0, fmt.Errorf("has no known port after %s: %w", r.unit.Start.Timeout, err)
		}
		r.rec.Port = port
		attempt, cancel := context.WithCancelCause(ctx)
		followed := make(chan struct{})
		go func() {
			defer close(followed)
			r.followPort(attempt, cancel)
		}()
		l, err := r.ready(attempt)
		changed := errors.Is(context.Cause(attempt), errPortChanged)
		cancel(nil)
		<-followed
		if err == nil || !changed {
			return l, port, err
		}
	}
}

// searchPort returns the port of the worker as soon as it is clear which one that is. If ctx ends before, the error is
// the reason.
func (r startWait) searchPort(ctx context.Context) (int, error) {
	var last error
	for {
		port, err := r.port(ctx)
		if err == nil {
			return port, nil
		}
		if last == nil || ctx.Err() == nil {
			last = err
			r.progress.report("its port", err, time.Time{})
		}
		if !r.pauseSearch(ctx) {
			return 0, last
		}
	}
}

// followPort cancels the wait with errPortChanged when the port is not that of r any more.
func (r startWait) followPort(ctx context.Context, cancel context.CancelCauseFunc) {
	for r.pauseSearch(ctx) {
		port, err := r.port(ctx)
		if _, unclear := errors.AsType[unclearPortError](err); unclear || err == nil && port != r.rec.Port {
			cancel(errPortChanged)
			return
		}
	}
}

// pauseSearch waits until the next search, and reports whether ctx still lasts.
func (r startWait) pauseSearch(ctx context.Context) bool {
	select {
	case <-time.After(min(max(firstSearch, time.Since(r.began)/pauseShare), mostSearch)):
		return true
	case <-ctx.Done():
		return false
	}
}

// port returns the port of the worker: that which it has published, or else the only one on which its family listens.
// The error is an unclearPortError unless the search failed.
func (r startWait) port(ctx context.Context) (int, error) {
	published := announcedPorts(r.announced())
	switch len(published) {
	case 0:
	case 1:
		return published[0], checkAnnounced(r.inst, published[0])
	default:
		return 0, unclearPortError(fmt.Sprintf("it has published the ports %s, and one is needed", listed(published)))
	}
	open, err := r.inst.ListensOn(ctx)
	switch {
	case err != nil:
		return 0, err
	case len(open) == 0:
		return 0, unclearPortError("it listens on no port")
	case len(open) > 1:
		return 0, unclearPortError(
			fmt.Sprintf("it listens on the ports %s, and has published none of them", listed(open)))
	}
	return open[0], nil
}

// checkAnnounced returns the reason why a published port cannot be used yet.
func checkAnnounced(inst launcher.Sockets, port int) error {
	owner, _ := inst.OwnsPort(port) // if it cannot be determined, the check that follows decides
	switch owner {
	case process.PortFree:
		return unclearPortError(fmt.Sprintf("it has published port %d, and does not listen on it", port))
	case process.PortForeign:
		return unclearPortError(fmt.Sprintf("it has published port %d, which %v", port, launcher.ErrForeignPort))
	case process.PortOurs, process.PortUnknown:
	}
	return nil
}

// protocolGRPC is the protocol of APIs that the gateway serves.
const protocolGRPC = "grpc"

// IsGRPC reports whether an API is served by gRPC, and so through the gateway. That is assumed if it has no protocol.
func IsGRPC(api records.AnnouncedAPI) bool {
	return api.Protocol == "" || strings.EqualFold(api.Protocol, protocolGRPC)
}

// announcedPorts returns the ports of the published APIs for gRPC, or those of all APIs if none is for gRPC.
func announcedPorts(announcements []records.Announcement) []int {
	var ports, others []int
	for _, a := range announcements {
		for _, api := range a.APIs {
			list := &others
			if IsGRPC(api) {
				list = &ports
			}
			if api.Port != 0 && !slices.Contains(*list, api.Port) {
				*list = append(*list, api.Port)
			}
		}
	}
	if len(ports) == 0 {
		ports = others
	}
	slices.Sort(ports)
	return ports
}

// listed returns the first ports as text.
func listed(ports []int) string {
	const most = 8
	text := strings.ReplaceAll(strings.Trim(fmt.Sprint(ports[:min(len(ports), most)]), "[]"), " ", ", ")
	if len(ports) > most {
		text += fmt.Sprintf(" and %d more", len(ports)-most)
	}
	return text
}

// withPort returns the instance with its port known. Readers have been shown the former value.
func withPort(i records.Instance, port int) *records.Instance {
	i.Port = port
	return &i
}
