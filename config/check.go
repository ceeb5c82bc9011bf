package config

import (
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/core-tools/hsu-master/internal/nearest"
	"github.com/core-tools/hsu-master/internal/placeholder"
)

// check reports the faults of the file as a whole.
func (l *loader) check(file *File) {
	isMap := file.main.kind == mapNode || file.main.kind == nullNode
	if units := file.main.get("units"); isMap && units == nil && len(l.included) == 0 && len(file.Include) == 0 &&
		!l.faults.full() && !slices.ContainsFunc(file.main.entries, meansUnits) {
		l.faults.add(place{src: file.main.at.src}, `the file has no units: write "units: {}" if none are wanted`)
	}
	l.checkServing(file)
	l.checkPorts(file)
	l.checkDependencies(file)
	l.checkOnEvent(file)
}

// checkServing reports addresses that other hosts can reach without TLS, and incomplete TLS.
func (l *loader) checkServing(file *File) {
	r := l.reader()
	switch t := file.TLS; {
	case (t.Cert == "") != (t.Key == ""):
		r.conflict(file.main, "tls", "needs both cert and key")
	case t.ClientCA != "" && t.Cert == "":
		r.conflict(file.main, "tls", "client_ca needs cert and key")
	}
	if !loopback(file.Listen) && file.TLS.Cert == "" && !file.Insecure {
		r.conflict(file.main, "listen",
			"other hosts can reach this address: secure it with tls, or allow it with insecure: true")
	}
	if file.Metrics != "" && !loopback(file.Metrics) && !file.Insecure {
		r.conflict(file.main, "metrics", "other hosts can reach this address: allow it with insecure: true")
	}
}

// checkPorts reports fixed ports that two units, or a unit and the master, would use at the same time.
func (l *loader) checkPorts(file *File) {
	r := l.reader()
	users := map[int]string{}
	for _, own := range []struct{ key, address string }{{"listen", file.Listen}, {"metrics", file.Metrics}} {
		port := localPort(own.address)
		if port == 0 || file.main.get(own.key).blank() { // a flag may replace the default
			continue
		}
		if other, taken := users[port]; taken {
			r.conflict(file.main, own.key, "%d is the port of %s too: use another one", port, other)
		}
		users[port] = own.key
	}
	for i, u := range file.Units {
		if u.Routing.Port.Mode != PortFixed || !u.Enabled || u.Replicas != 1 || u.Schedule != "" {
			continue
		}
		port := u.Routing.Port.Number
		if other, taken := users[port]; taken {
			r.path = []string{"units", u.Name}
			r.conflict(file.units[i], "port", "%d is the port of %s: use another one, or port: auto", port, other)
			continue
		}
		users[port] = "unit " + u.Name
	}
}

// localPort returns the port of an address on which a worker, at 127.0.0.1, cannot listen too; 0 if there is none.
func localPort(address string) int {
	at, err := netip.ParseAddrPort(address)
	if err != nil || !at.Addr().IsUnspecified() && at.Addr() != netip.AddrFrom4([4]byte{127, 0, 0, 1}) {
		return 0
	}
	return int(at.Port())
}

// checkUnit reports values of a unit that do not fit together.
func checkUnit(r *reader, u *Unit, n *node, e entry) {
	switch r.unit {
	case integrated, managed:
		if n.get("command") == nil && !e.value.partial && (n.kind == mapNode || n.blank()) && !r.faults.full() &&
			!mistyped(n, "command", u.keys(), r.unit) {
			r.faultAt(e.at, "command is missing: a list such as [./bin/search, --log-level, info]")
		}
	case unmanaged:
		checkDiscover(r, u, n, e)
	default: // the kind has a fault
	}
	if u.Program.Nice < 0 && !r.host.Root {
		r.conflict(n, "nice", "only a master that runs as root can use a value below 0")
	}
	checkPort(r, u, n)
	if r.unit == managed {
		checkSchedule(r, u, n)
	}
	checkUpdate(r, u, n)
	checkLog(r, u, n.get("log"))
	if b := u.Restart.Backoff; b.Initial > b.Max {
		r.conflict(n, "restart.backoff.initial", "%s is longer than max, which is %s", b.Initial, b.Max)
	}
	for _, name := range []string{"health", "readiness", "liveness"} {
		if check := n.get(name); !check.blank() && r.unit != 0 {
			r.within(name, func() { checkHealth(r, u, name, check) })
		}
	}
	checkServices(r, u, n)
	checkSettle(r, u, n)
}

// mistyped reports whether an unknown key of a map probably stands for the one with the name.
func mistyped(n *node, name string, keys []key, unit kinds) bool {
	known := names(keys, unit)
	return slices.ContainsFunc(n.entries, func(e entry) bool {
		return find(keys, e.name) == nil && !ignored(e.name) && likelyName(e.name, known) == name
	})
}

// checkSettle reports a time to settle in which the start ends. It has no meaning for other checks.
func checkSettle(r *reader, u *Unit, n *node) {
	given := !n.get("start").get("settle").blank()
	if given && u.Readiness.Type == HealthProcess && r.unit&started != 0 && u.Start.Settle >= u.Start.Timeout {
		r.conflict(n, "start.settle", "%s is not shorter than timeout, which is %s: no worker would get ready",
			u.Start.Settle, u.Start.Timeout)
	}
}

func checkServices(r *reader, u *Unit, n *node) {
	list := u.Routing.Services
	for i, service := range list {
		if slices.Contains(list[:i], service) && service != "" {
			r.conflict(n, "services", "%q is given twice", service)
		}
	}
	if len(list) > 0 && u.Routing.Port.Mode == PortNone && r.unit == managed {
		r.conflict(n, "services", "calls need a port: give the unit port: auto, and {port} in its command")
	}
}

// checkUpdate reports units that cannot have a spare worker. Those with a fixed port are reported by checkPort.
func checkUpdate(r *reader, u *Unit, n *node) {
	switch {
	case u.Update.Order != StartFirst:
	case u.Schedule != "":
		r.conflict(n, "update.order", "a unit with a schedule is not replaced: its next run is of the new version")
	case u.Replicas >= MaxReplicas:
		r.conflict(n, "replicas", "update.order: start-first needs one more worker: use %d at most", MaxReplicas-1)
	}
}

// checkLog reports keys of a file's rotation in a unit whose output goes to no file. Those of "defaults:" are for the
// other units.
func checkLog(r *reader, u *Unit, n *node) {
	if u.Log.To != LogToJournal && u.Log.To != LogToInherit {
		return
	}
	for _, e := range entriesOf(n) {
		if e.name != "to" && !e.inherited && !ignored(e.name) {
			r.within("log", func() { r.faultAt(e.at, "%s is for to: file, and this is %s", e.name, u.Log.To) })
		}
	}
}

func checkDiscover(r *reader, u *Unit, n *node, e entry) {
	discover := n.get("discover")
	given := 0
	if discover != nil {
		for _, e := range discover.entries {
			if !ignored(e.name) {
				given++
			}
		}
	}
	switch {
	case discover == nil && e.value.partial:
	case discover == nil:
		r.faultAt(e.at, "discover is missing: how the process is found, such as {pid_file: /run/db.pid}")
	case given != 1 && (discover.kind == mapNode || discover.kind == nullNode):
		r.conflict(n, "discover", "must have exactly one of pid_file, process, port, systemd")
	case discover.get("process") != nil && u.Discover.Process.Name == "":
		r.conflict(n, "discover.process", "name is missing")
	}
	if slices.Contains(u.Allow, VerbRestart) && u.Discover.Systemd == "" {
		r.conflict(n, "allow", "restart needs discover.systemd: only systemd can start the process")
	}
}

func checkPort(r *reader, u *Unit, n *node) {
	if n.get("port") == nil {
		return
	}
	switch mode := u.Routing.Port.Mode; {
	case mode == PortNone && r.unit == integrated:
		r.conflict(n, "port", "an integrated unit has a port: use kind: managed for a program without one")
	case mode == PortFixed && u.Replicas > 1:
		r.conflict(n, "port", "%d replicas cannot share a port: use port: auto", u.Replicas)
	case mode == PortFixed && u.Update.Order == StartFirst:
		r.conflict(n, "port", "update.order: start-first needs a second port: use port: auto")
	case mode == PortAnnounced && mentionsPlaceholder(n):
		r.conflict(n, "port", "{port} is not known before the worker has announced it: use port: auto")
	case mode == PortNone && usesPort(n):
		r.conflict(n, "port", "the command or the environment uses the port: use port: auto")
	}
}

// mentionsPlaceholder reports whether a command or the environment has the placeholder {port}.
func mentionsPlaceholder(n *node) bool {
	return anyOfProgram(n, func(n *node) bool { return placeholder.In(n.text, placeholder.Port) })
}

func checkSchedule(r *reader, u *Unit, n *node) {
	if n.get("schedule").blank() {
		if u.Missed == MissedRunOnce {
			r.conflict(n, "missed", "is for a unit with a schedule")
		}
		return
	}
	if u.Replicas != 1 {
		r.conflict(n, "replicas", "a unit with a schedule has one replica")
	}
	if u.Restart.Policy != RestartNever {
		r.conflict(n, "restart.policy",
			"a unit with a schedule is not restarted: leave it out, or use never")
	}
	if u.Essential {
		r.conflict(n, "essential", "a unit with a schedule ends after each run")
	}
	if u.MemoryRestart != 0 {
		r.conflict(n, "memory_restart", "a unit with a schedule is not restarted: leave it out, or use limits.memory")
	}
}

// checkHealth reports keys that are not for the type of a check, and missing ones.
func checkHealth(r *reader, u *Unit, name string, n *node) {
	h := map[string]*Health{"health": &u.Health, "readiness": &u.Readiness, "liveness": &u.Liveness}[name]
	for _, e := range n.entries {
		if types, typed := healthFields[e.name]; typed && !slices.Contains(types, h.Type) {
			r.faultAt(e.at, "%s is for %s, and this check is of type %s", e.name, typeNames(types), h.Type)
		}
	}
	hasPort := u.Routing.Port.Mode != PortNone && r.unit != unmanaged
	switch h.Type {
	case HealthAuto:
		if r.unit != integrated {
			r.conflict(n, "type", "auto is for integrated units: use process, tcp, http, grpc or exec")
		}
	case HealthPing:
		if !hasPort {
			r.conflict(n, "type", "ping needs a unit with a port")
		}
	case HealthGRPC, HealthTCP:
		if n.get("address") == nil && !hasPort {
			r.conflict(n, "type", "%s needs an address: the unit has no port", h.Type)
		}
	case HealthHTTP:
		if n.get("url") == nil {
			r.conflict(n, "type", "http needs a url such as http://127.0.0.1:{port}/health")
		}
	case HealthExec:
		if n.get("command") == nil {
			r.conflict(n, "type", "exec needs a command")
		}
	case HealthNotify:
		if r.unit == unmanaged {
			r.conflict(n, "type", "notify is for units that the master starts")
		}
	case HealthProcess:
	}
	if placeholder.In(h.URL+h.Address, placeholder.Port) && !hasPort {
		r.fault(n, "{port} is used, and the unit has no port: give it port: auto")
	}
}

func typeNames(types []HealthType) string {
	names := make([]string, len(types))
	for i, t := range types {
		names[i] = "type " + string(t)
	}
	return strings.Join(names, " and ")
}

// checkDependencies reports dependencies that can never be fulfilled.
func (l *loader) checkDependencies(file *File) {
	r := l.reader()
	index := make(map[string]int, len(file.Units))
	all := make([]string, 0, len(file.Units))
	for i, u := range file.Units {
		index[u.Name] = i
		if nameFault(u.Name) == "" {
			all = append(all, u.Name)
		}
	}
	for i, u := range file.Units {
		list := file.units[i].get("depends_on")
		for _, d := range u.DependsOn {
			r.path = []string{"units", u.Name, "depends_on", d.Unit}
			at := entryOf(list, d.Unit).at
			on, known := index[d.Unit]
			switch {
			case d.Unit == u.Name:
				r.faultAt(at, "a unit cannot depend on itself")
			case !known && l.meant[possibleName(d.Unit)]: // it may be right once that unit has another name
			case !known && !l.faults.full():
				r.faultAt(at, "there is no unit %.100q%s", d.Unit, nearest.DidYouMean(d.Unit, all))
			case known:
				checkCondition(r, at, d.Condition, file.Units[on])
			}
		}
	}
	l.checkCycles(file, index)
}

func checkCondition(r *reader, at place, condition Condition, on Unit) {
	switch {
	case on.Schedule != "":
		r.faultAt(at, "the unit has a schedule: nothing can wait for it")
	case condition != Completed:
	case on.Kind == Unmanaged:
		r.faultAt(at, "an unmanaged unit never completes: use started or ready")
	case on.Restart.Policy == RestartAlways:
		r.faultAt(at, "the unit is always restarted and never completes: use ready, or restart.policy: on-failure")
	}
}

// checkCycles reports each unit that waits for itself through others, once for the cycle.
func (l *loader) checkCycles(file *File, index map[string]int) {
	const (
		unseen = iota
		onPath
		done
	)
	state := make([]int, len(file.Units))
	var path []string
	var visit func(i int)
	visit = func(i int) {
		u := file.Units[i]
		state[i] = onPath
		path = append(path, u.Name)
		for _, d := range u.DependsOn {
			on, known := index[d.Unit]
			switch {
			case !known || on == i:
			case state[on] == onPath:
				cycle := append(slices.Clone(path[slices.Index(path, d.Unit):]), d.Unit)
				l.faults.add(entryOf(file.units[i].get("depends_on"), d.Unit).at,
					"depends_on: these units wait for each other: %s", shortened(cycle))
			case state[on] == unseen:
				visit(on)
			}
		}
		path = path[:len(path)-1]
		state[i] = done
	}
	for i := range file.Units {
		if state[i] == unseen {
			visit(i)
		}
	}
}

// shortened returns the names of a cycle, without the middle of a long one.
func shortened(cycle []string) string {
	const most = 10
	if len(cycle) > most {
		left := len(cycle) - most
		cycle = slices.Concat(cycle[:most/2], []string{"(" + strconv.Itoa(left) + " more)"}, cycle[len(cycle)-most/2:])
	}
	return strings.Join(cycle, " -> ")
}

func itemsOf(n *node) []*node {
	if n == nil {
		return nil
	}
	return n.items
}

func entriesOf(n *node) []entry {
	if n == nil {
		return nil
	}
	return n.entries
}

// entryOf returns the entry of a map with a name, or one without place.
func entryOf(n *node, name string) entry {
	for _, e := range entriesOf(n) {
		if e.name == name {
			return e
		}
	}
	return entry{}
}
