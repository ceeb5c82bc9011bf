package describe

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/render"
	"github.com/core-tools/hsu-master/cmd/hsu-master/internal/terminal"
	"github.com/core-tools/hsu-master/supervisor/services"
)

// Services prints a table with one line per endpoint, or on a terminal that is too narrow for that, one for each
// service. The figures are printed only for a running master, which has them.
func Services(w io.Writer, list []*adminpb.Service, live bool) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no services")
		return err
	}
	titles := []string{"SERVICE", "ENDPOINT", "WORKER", "SOURCE", "STATE"}
	if live {
		titles = append(titles, "CALLS", "IN FLIGHT", "FAILED", "P50", "P99")
	}
	table := render.NewTable(titles...)
	for _, s := range list {
		for _, cells := range endpointRows(s, live) {
			table.Row(append([]string{render.Printable(s.GetName())}, cells...)...)
		}
	}
	if width := terminal.Width(w); width > 0 && table.Width() > width {
		return printNarrowServices(w, list, titles[1:], live)
	}
	if err := table.Print(w); err != nil {
		return err
	}
	return printServiceRemarks(w, list)
}

// printNarrowServices prints a table for each service, below its name.
func printNarrowServices(w io.Writer, list []*adminpb.Service, titles []string, live bool) error {
	for _, s := range list {
		fmt.Fprintln(w, render.CutAt(render.Printable(s.GetName()), render.WidthFor(w)))
		table := render.NewTable(titles...)
		for _, cells := range endpointRows(s, live) {
			table.Row(cells...)
		}
		if err := table.Print(w); err != nil {
			return err
		}
	}
	return printServiceRemarks(w, list)
}

// endpointRows returns the cells of a line for each endpoint of a service, without its name.
func endpointRows(s *adminpb.Service, live bool) (rows [][]string) {
	if len(s.GetEndpoints()) == 0 {
		none := []string{"-", "-", "-", "no endpoint"}
		if live {
			none = append(none, "-", "-", "-", "-", "-")
		}
		return [][]string{none}
	}
	for _, e := range s.GetEndpoints() {
		cells := []string{
			render.Printable(e.GetAddress()), render.Printable(render.OrDash(e.GetWorker())),
			render.Printable(render.OrDash(e.GetSource())),
			EndpointState(e),
		}
		if live {
			f := e.GetFigures()
			cells = append(cells, strconv.FormatUint(f.GetCalls(), 10), strconv.FormatInt(f.GetInFlight(), 10),
				strconv.FormatUint(failures(f), 10), quantile(f.GetLatency(), 0.5), quantile(f.GetLatency(), 0.99))
		}
		rows = append(rows, cells)
	}
	return rows
}

// printServiceRemarks prints below the tables the facts that have no column.
func printServiceRemarks(w io.Writer, list []*adminpb.Service) error {
	tell := func(format string, args ...any) error {
		_, err := fmt.Fprintln(w, "\n"+render.OnTerminal(w, fmt.Sprintf(format, args...)))
		return err
	}
	for _, s := range list {
		name := render.Printable(s.GetName())
		if n := s.GetWaiting(); n > 0 {
			if err := tell("%s has %s waiting for an endpoint", name, render.Count(int(n), "call")); err != nil {
				return err
			}
		}
		for _, e := range s.GetEndpoints() {
			for _, remark := range remarks(e) {
				if err := tell("%s at %s %s", name, render.Printable(e.GetAddress()), remark); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// remarks returns the rare conditions of an endpoint that have no column in the table.
func remarks(e *adminpb.Endpoint) []string {
	var all []string
	if e.GetReason() != "" && !e.GetHealthy() {
		all = append(all, "is not ready: "+render.Printable(e.GetReason()))
	}
	f := e.GetFigures()
	var parts []string
	for _, code := range slices.Sorted(maps.Keys(f.GetFailures())) {
		parts = append(parts, fmt.Sprintf("%d %s", f.GetFailures()[code], render.Printable(code)))
	}
	if len(parts) > 0 {
		all = append(all, "has failed calls: "+strings.Join(parts, ", "))
	}
	if n := f.GetRetries(); n > 0 {
		all = append(all, "has lost "+render.Count(int(n), "call")+" that went on to another endpoint")
	}
	if n := f.GetEjections(); n > 0 {
		note := "was taken out for failing again and again, " + render.Count(int(n), "time")
		if left := e.GetEjectedFor().AsDuration(); left > 0 {
			note += ", and is back in " + left.Round(time.Second/10).String()
		}
		all = append(all, note)
	}
	return all
}

// EndpointState describes whether an endpoint gets calls.
func EndpointState(e *adminpb.Endpoint) string {
	switch {
	case !e.GetHealthy():
		return "not ready"
	case e.GetEjected():
		return "ejected"
	}
	return "ready"
}

func failures(f *adminpb.Figures) uint64 {
	var sum uint64
	for _, n := range f.GetFailures() {
		sum += n
	}
	return sum
}

// quantile formats the time within which the share of the calls ended, with the precision of the buckets.
func quantile(l *adminpb.Latency, share float64) string {
	d, ok := api.LatencyAt(l, share)
	switch {
	case !ok:
		return "-"
	case d == 0:
		return ">" + services.Bounds()[len(services.Bounds())-1].Round(time.Second).String()
	}
	return "≤" + d.String()
}

// Overview prints a table with one line for each service: its ready endpoints, calls and failures. It prints nothing
// if there are none.
func Overview(w io.Writer, list []*adminpb.Service) error {
	if len(list) == 0 {
		return nil
	}
	table := render.NewTable("SERVICE", "READY", "CALLS", "IN FLIGHT", "FAILED", "WAITING")
	for _, s := range list {
		var calls, failed uint64
		var ready, inFlight int64
		for _, e := range s.GetEndpoints() {
			if e.GetHealthy() && !e.GetEjected() {
				ready++
			}
			calls += e.GetFigures().GetCalls()
			inFlight += e.GetFigures().GetInFlight()
			failed += failures(e.GetFigures())
		}
		table.Row(render.Printable(s.GetName()), fmt.Sprintf("%d/%d", ready, len(s.GetEndpoints())), fmt.Sprint(calls),
			fmt.Sprint(inFlight), fmt.Sprint(failed), fmt.Sprint(s.GetWaiting()))
	}
	fmt.Fprintln(w)
	return table.Print(w)
}
