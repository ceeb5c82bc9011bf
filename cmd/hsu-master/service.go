package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/core-tools/hsu-master/api"
	"github.com/core-tools/hsu-master/api/adminpb"
	"github.com/core-tools/hsu-master/store"
	"github.com/core-tools/hsu-master/supervisor/registrations"
	"github.com/core-tools/hsu-master/supervisor/services"
)

func serviceCommand() *cli.Command {
	list := leaf("list", "list the services with their endpoints and figures",
		listServices, jsonOutput(),
		&cli.BoolFlag{
			Name: "watch",
			Usage: "print a line for each change until interrupted, also across restarts of the master; " +
				"with --json an object for each",
		})
	register := leafWith("register", "route calls of a service to an address that is no worker",
		registerService, "NAME HOST:PORT", 2, 2,
		&cli.DurationFlag{
			Name: "ttl",
			Usage: "`DURATION` remove the endpoint when it sends no heartbeat for this long, 1s to 24h; " +
				"0 keeps it (default 0)",
		})
	register.Description = `The endpoint gets calls as soon as it answers a health check: the Ping of an
HSU, the standard health service, or a TCP connection. To send a heartbeat, run
the same command again, or call Heartbeat of hsu.master.admin.v1.Registry on the
admin socket.`
	deregister := leafWith("deregister", "remove one registered endpoint of a service, or all of them",
		deregisterService, "NAME [HOST:PORT]", 1, 2)
	return group("service", "inspect the services, and register endpoints",
		list, register, deregister)
}

// leafWith returns a leaf that takes from least to most arguments.
func leafWith(name, usage string, action cli.ActionFunc, args string, least, most int, flags ...cli.Flag) *cli.Command {
	cmd := leaf(name, usage, nil, flags...)
	cmd.ArgsUsage = args
	cmd.Action = func(c *cli.Context) error {
		switch {
		case c.NArg() > most:
			return usagef("%s takes %s, got %q too", c.Command.HelpName, args, c.Args().Get(most))
		case c.NArg() < least:
			return usagef("%s takes %s: see %q", c.Command.HelpName, args, c.Command.HelpName+" --help")
		}
		return action(c)
	}
	return cmd
}

func listServices(c *cli.Context) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	if c.Bool("watch") {
		return watchServices(c, f)
	}
	state, err := readState(c.Context, f)
	if err != nil {
		return err
	}
	if c.Bool(jsonFlag) {
		return printJSON(c.App.Writer, servicesJSON{state.GetSource(), servicesToJSON(state.GetServices())})
	}
	printOffline(c.App.Writer, state)
	if err := printServices(c.App.Writer, state.GetServices(), state.GetSource() == api.SourceLive); err != nil {
		return err
	}
	printBadRecords(c.App.Writer, state)
	return nil
}

// printServices prints a table with one line per endpoint. The figures are printed only for a running master,
// which has them.
func printServices(w io.Writer, list []*adminpb.Service, live bool) error {
	if len(list) == 0 {
		_, err := fmt.Fprintln(w, "no services")
		return err
	}
	titles, none := []string{"SERVICE", "ENDPOINT", "WORKER", "SOURCE", "STATE"}, []string{"-", "-", "-", "no endpoint"}
	if live {
		titles = append(titles, "CALLS", "IN FLIGHT", "FAILED", "P50", "P99")
		none = append(none, "-", "-", "-", "-", "-")
	}
	table := newTable(titles...)
	for _, s := range list {
		if len(s.GetEndpoints()) == 0 {
			table.row(append([]string{printable(s.GetName())}, none...)...)
		}
		for _, e := range s.GetEndpoints() {
			cells := []string{
				printable(s.GetName()), printable(e.GetAddress()), printable(orDash(e.GetWorker())),
				printable(orDash(e.GetSource())), endpointState(e),
			}
			if live {
				f := e.GetFigures()
				cells = append(cells, strconv.FormatUint(f.GetCalls(), 10), strconv.FormatInt(f.GetInFlight(), 10),
					strconv.FormatUint(failures(f), 10), quantile(f.GetLatency(), 0.5), quantile(f.GetLatency(), 0.99))
			}
			table.row(cells...)
		}
	}
	if err := table.print(w); err != nil {
		return err
	}
	for _, s := range list {
		if n := s.GetWaiting(); n > 0 {
			fmt.Fprintf(w, "\n%s has %s waiting for an endpoint\n", printable(s.GetName()), count(int(n), "call"))
		}
		for _, e := range s.GetEndpoints() {
			for _, remark := range remarks(e) {
				fmt.Fprintf(w, "\n%s at %s %s\n", printable(s.GetName()), printable(e.GetAddress()), remark)
			}
		}
	}
	return nil
}

// remarks returns the rare conditions of an endpoint that have no column in the table.
func remarks(e *adminpb.Endpoint) []string {
	var all []string
	if e.GetReason() != "" && !e.GetHealthy() {
		all = append(all, "is not ready: "+printable(e.GetReason()))
	}
	f := e.GetFigures()
	var parts []string
	for _, code := range slices.Sorted(maps.Keys(f.GetFailures())) {
		parts = append(parts, fmt.Sprintf("%d %s", f.GetFailures()[code], printable(code)))
	}
	if len(parts) > 0 {
		all = append(all, "has failed calls: "+strings.Join(parts, ", "))
	}
	if n := f.GetRetries(); n > 0 {
		all = append(all, "has lost "+count(int(n), "call")+" that went on to another endpoint")
	}
	if n := f.GetEjections(); n > 0 {
		note := "was taken out for failing again and again, " + count(int(n), "time")
		if left := e.GetEjectedFor().AsDuration(); left > 0 {
			note += ", and is back in " + left.Round(time.Second/10).String()
		}
		all = append(all, note)
	}
	return all
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func endpointState(e *adminpb.Endpoint) string {
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
	d, ok := latencyAt(l, share)
	switch {
	case !ok:
		return "-"
	case d == 0:
		return ">" + services.Bounds()[len(services.Bounds())-1].Round(time.Second).String()
	}
	return "≤" + d.String()
}

// latencyAt returns the upper bound of the bucket that holds the quantile, or 0 for the last bucket, which has
// none. ok is false if no call has ended.
func latencyAt(l *adminpb.Latency, share float64) (bound time.Duration, ok bool) {
	var all, sum uint64
	for _, n := range l.GetCounts() {
		all += n
	}
	if all == 0 {
		return 0, false
	}
	bounds := services.Bounds()
	for i, n := range l.GetCounts() {
		sum += n
		if float64(sum) >= share*float64(all) && i < len(bounds) {
			return bounds[i], true
		}
	}
	return 0, true
}

// overview prints one summary line per service.
func overview(w io.Writer, list []*adminpb.Service) error {
	if len(list) == 0 {
		return nil
	}
	table := newTable("SERVICE", "READY", "CALLS", "IN FLIGHT", "FAILED", "WAITING")
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
		table.row(printable(s.GetName()), fmt.Sprintf("%d/%d", ready, len(s.GetEndpoints())), fmt.Sprint(calls),
			fmt.Sprint(inFlight), fmt.Sprint(failed), fmt.Sprint(s.GetWaiting()))
	}
	fmt.Fprintln(w)
	return table.print(w)
}

// withRegistry calls ask with a client of the running master's registry of services.
func withRegistry(c *cli.Context, ask func(ctx context.Context, client adminpb.RegistryClient) error) error {
	f, err := foldersOf(c)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(c.Context, answerWithin)
	defer cancel()
	conn, err := dialRegistry(ctx, f)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	return registryError(ask(ctx, adminpb.NewRegistryClient(conn)))
}

// dialRegistry connects to the master of these folders, and verifies that it uses this state folder.
func dialRegistry(ctx context.Context, f folders) (*grpc.ClientConn, error) {
	if _, err := liveState(ctx, f); errors.Is(err, errNoMaster) {
		if holder := store.Holder(f.state); holder != nil {
			return nil, offline(f, holder)
		}
		return nil, hint(err, `start one with "hsu-master run", or name its --state-dir`)
	} else if err != nil {
		return nil, err
	}
	return dialAdmin(ctx, f)
}

// registryError turns a status of the registry into an error for the user.
func registryError(err error) error {
	said := errors.New(status.Convert(err).Message())
	switch status.Code(err) {
	case codes.OK:
		return nil
	case codes.InvalidArgument:
		return usageError{said}
	case codes.NotFound:
		return hint(said, `"hsu-master service list" lists the registered endpoints`)
	case codes.DeadlineExceeded:
		return hint(fmt.Errorf("the master does not answer within %s", answerWithin),
			"see its log; the request may have been executed")
	case codes.Unimplemented:
		return hint(errors.New("the running master is of an older release"), "restart it, its workers keep running")
	default:
		return fmt.Errorf("ask the master: %w", said)
	}
}

func registerService(c *cli.Context) error {
	name, address, ttl := c.Args().Get(0), c.Args().Get(1), c.Duration("ttl")
	if err := registrations.Check(name, address, ttl); err != nil {
		return usageError{err}
	}
	return withRegistry(c, func(ctx context.Context, client adminpb.RegistryClient) error {
		resp, err := client.Register(ctx, &adminpb.RegisterRequest{
			Service: name, Address: address, Ttl: durationpb.New(ttl),
		})
		if err != nil {
			return err
		}
		e := resp.GetEndpoint()
		how := "it answers and gets calls"
		if !e.GetHealthy() {
			how = "it gets calls as soon as it answers, now: " + printable(e.GetReason())
		}
		fmt.Fprintf(c.App.Writer, "registered %s at %s: %s\n", name, address, how)
		if ttl > 0 {
			fmt.Fprintf(c.App.Writer, "next: the same again within %s, and again and again\n", ttl)
		}
		return nil
	})
}

func deregisterService(c *cli.Context) error {
	name, address := c.Args().Get(0), c.Args().Get(1)
	if err := services.CheckName(name); err != nil {
		return usageError{err}
	}
	if c.NArg() > 1 {
		if err := registrations.CheckAddress(address); err != nil {
			return usageError{err}
		}
	}
	return withRegistry(c, func(ctx context.Context, client adminpb.RegistryClient) error {
		resp, err := client.Deregister(ctx, &adminpb.DeregisterRequest{Service: name, Address: address})
		if err != nil {
			return err
		}
		for _, gone := range resp.GetRemoved() {
			fmt.Fprintf(c.App.Writer, "deregistered %s at %s\n", name, printable(gone))
		}
		return nil
	})
}

// wordsOf returns the values of a repeatable flag. An environment variable holds several values separated by
// blanks; no value contains a blank.
func wordsOf(c *cli.Context, flag string, fail func(string, ...any)) []string {
	var words []string
	for _, value := range c.StringSlice(flag) {
		fields := strings.Fields(value)
		if len(fields) == 0 {
			fail("--%s is empty: see \"hsu-master run --help\"", flag)
		}
		words = append(words, fields...)
	}
	return words
}

// policiesOf parses --service-option.
func policiesOf(c *cli.Context, fail func(string, ...any)) map[string]services.Policy {
	policies := make(map[string]services.Policy)
	for _, text := range wordsOf(c, "service-option", fail) {
		name, p, err := services.ParsePolicy(text)
		if err != nil {
			fail("--service-option: %w", err)
			continue
		}
		if _, twice := policies[name]; twice {
			fail("--service-option: %s is given twice: put all fields into one", name)
		}
		policies[name] = p
	}
	return policies
}

// noService, as the only --worker-service, means that the workers offer no service.
const noService = "none"

// workerServicesOf parses --worker-service; none reports whether it is [noService].
func workerServicesOf(c *cli.Context, fail func(string, ...any)) (names []string, none bool) {
	words := wordsOf(c, "worker-service", fail)
	if slices.Contains(words, noService) {
		if len(words) > 1 {
			fail("--worker-service %s: cannot be combined with other services", noService)
		}
		return nil, true
	}
	for _, name := range words {
		switch err := services.CheckName(name); {
		case err != nil:
			fail("--worker-service: %w", err)
		case services.Infrastructure(name):
			fail("--worker-service %s: each endpoint has this service of its own, omit it", name)
		case slices.Contains(names, name):
			fail("--worker-service %s is given twice", strconv.Quote(name))
		default:
			names = append(names, name)
		}
	}
	return names, false
}
