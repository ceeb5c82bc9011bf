package records

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"

	"github.com/core-tools/hsu-master/identity"
	pb "github.com/core-tools/hsu-master/store/storepb"
)

// maxPort is the largest TCP port.
const maxPort = math.MaxUint16

// maxWatchdog is the longest time in microseconds that a duration can have.
const maxWatchdog = math.MaxInt64 / int64(time.Microsecond)

// maxID bounds the ids that are used as keys, in bytes.
const maxID = 1024

var (
	desiredCodes = map[Desired]pb.Desired{
		DesiredRunning: pb.Desired_DESIRED_RUNNING,
		DesiredStopped: pb.Desired_DESIRED_STOPPED,
	}
	statusCodes = map[Status]pb.Status{
		StatusStarting:  pb.Status_STATUS_STARTING,
		StatusRunning:   pb.Status_STATUS_RUNNING,
		StatusUnhealthy: pb.Status_STATUS_UNHEALTHY,
		StatusStopping:  pb.Status_STATUS_STOPPING,
		StatusStopped:   pb.Status_STATUS_STOPPED,
		StatusBackoff:   pb.Status_STATUS_BACKOFF,
		StatusFailed:    pb.Status_STATUS_FAILED,
		StatusCompleted: pb.Status_STATUS_COMPLETED,
		StatusWaiting:   pb.Status_STATUS_WAITING,
		StatusScheduled: pb.Status_STATUS_SCHEDULED,
		StatusAbsent:    pb.Status_STATUS_ABSENT,
	}
	proofCodes = map[identity.Proof]pb.Proof{
		identity.ProofNone:           pb.Proof_PROOF_UNSPECIFIED,
		identity.ProofPidfdInode:     pb.Proof_PROOF_PIDFD_INODE,
		identity.ProofStartTimeToken: pb.Proof_PROOF_START_TIME_TOKEN,
	}
	exitSourceCodes = map[identity.ExitSource]pb.ExitSource{
		identity.ExitUnknown: pb.ExitSource_EXIT_SOURCE_UNKNOWN,
		identity.ExitWait:    pb.ExitSource_EXIT_SOURCE_WAIT,
		identity.ExitPidfd:   pb.ExitSource_EXIT_SOURCE_PIDFD,
		identity.ExitStat:    pb.ExitSource_EXIT_SOURCE_STAT,
	}
	kindCodes = map[UnitKind]pb.UnitKind{
		KindUnknown:    pb.UnitKind_UNIT_KIND_UNSPECIFIED,
		KindIntegrated: pb.UnitKind_UNIT_KIND_INTEGRATED,
		KindManaged:    pb.UnitKind_UNIT_KIND_MANAGED,
		KindUnmanaged:  pb.UnitKind_UNIT_KIND_UNMANAGED,
	}

	desiredNames    = inverse(desiredCodes)
	statusNames     = inverse(statusCodes)
	proofNames      = inverse(proofCodes)
	exitSourceNames = inverse(exitSourceCodes)
	kindNames       = inverse(kindCodes)
)

func inverse[K, V comparable](m map[K]V) map[V]K {
	names := make(map[V]K, len(m))
	for k, v := range m {
		names[v] = k
	}
	return names
}

// lookup translates between the words of this package and the numbers in the file, in either direction.
func lookup[K, V comparable](m map[K]V, what string, k K) (V, error) {
	v, ok := m[k]
	if !ok {
		return v, fmt.Errorf("unknown %s %v", what, k)
	}
	return v, nil
}

// text makes s storable: protobuf refuses a string that is not valid UTF-8, and a reason may quote arbitrary output
// of a worker.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// bounds collects errors about values that do not fit into the fields of the file.
type bounds struct{ err error }

func (b *bounds) int32(what string, v, least, most int) int32 {
	if v < least || v > most {
		b.err = errors.Join(b.err, fmt.Errorf("%s %d: must be %d to %d", what, v, least, most))
	}
	return int32(v)
}

func (b *bounds) instance(i *Instance) *pb.Instance {
	if i == nil {
		return nil
	}
	proof, err := lookup(proofCodes, "proof", i.Proof)
	b.err = errors.Join(b.err, err)
	return &pb.Instance{
		Token:        text(i.Token),
		Pid:          b.int32("pid", i.PID, 0, math.MaxInt32),
		PidfdInode:   i.Inode,
		StartTicks:   i.StartTicks,
		BootId:       text(i.BootID),
		PidNamespace: i.PIDNamespace,
		Proof:        proof,
		Port:         b.int32("instance port", i.Port, 0, maxPort),
		ExeHash:      text(i.ExeHash),
		Started:      stamp(i.Started),
		LeaseDevice:  i.Lease.Device,
		LeaseInode:   i.Lease.Inode,
		Uid:          i.UID,
		OwnPort:      i.OwnPort,
	}
}

func (b *bounds) found(f *Found) *pb.Found {
	if f == nil {
		return nil
	}
	proof, err := lookup(proofCodes, "proof", f.Proof)
	b.err = errors.Join(b.err, err)
	return &pb.Found{
		Pid:          b.int32("pid of the found process", f.PID, 1, math.MaxInt32),
		PidfdInode:   f.Inode,
		StartTicks:   f.StartTicks,
		BootId:       text(f.BootID),
		PidNamespace: f.PIDNamespace,
		Proof:        proof,
		Name:         text(f.Name),
		Started:      stamp(f.Started),
	}
}

func (b *bounds) exit(e *identity.Exit) *pb.Exit {
	if e == nil {
		return nil
	}
	source, err := lookup(exitSourceCodes, "exit source", e.Source)
	b.err = errors.Join(b.err, err)
	return &pb.Exit{
		// A Windows exit code is an unsigned 32-bit number.
		Code:   int32(uint32(b.code(e.Code))),
		Signal: b.int32("signal", int(e.Signal), 0, math.MaxInt32),
		Source: source,
		At:     stamp(e.At),
	}
}

func stamp(t time.Time) *timestamppb.Timestamp {
	if t.IsZero() {
		return nil
	}
	return timestamppb.New(t)
}

func readTime(what string, t *timestamppb.Timestamp) (time.Time, error) {
	if t == nil {
		return time.Time{}, nil
	}
	if err := t.CheckValid(); err != nil {
		return time.Time{}, fmt.Errorf("%s: %w", what, err)
	}
	return t.AsTime(), nil
}

func checkID(id string) error { return checkKey("worker id", id) }

func checkUnitName(name string) error { return checkKey("unit name", name) }

func checkKey(what, key string) error {
	switch {
	case key == "":
		return fmt.Errorf("%s: required", what)
	case len(key) > maxID:
		return fmt.Errorf("%s: %d bytes, at most %d", what, len(key), maxID)
	case text(key) != key:
		return fmt.Errorf("%s %q: not UTF-8", what, key)
	}
	return nil
}

func encodeWorker(w Worker) ([]byte, error) {
	desired, err1 := lookup(desiredCodes, "desired state", w.Desired)
	status, err2 := lookup(statusCodes, "status", w.Status)
	if err := errors.Join(checkID(w.ID), err1, err2); err != nil {
		return nil, err
	}
	var b bounds
	m := &pb.Worker{
		Id:          w.ID,
		Unit:        text(w.Unit),
		Desired:     desired,
		Status:      status,
		Reason:      text(w.Reason),
		Incarnation: w.Incarnation,
		SpecHash:    text(w.SpecHash),
		Restarts:    w.Restarts,
		Budget:      encodeHistory(w.History),
		Outdated:    w.Outdated,
		Port:        b.int32("port", w.Port, 0, maxPort),
		SecretKey:   text(w.SecretKey), EnvironmentMac: text(w.EnvironmentMAC),
	}
	for _, o := range w.Services {
		m.Services = append(m.Services,
			&pb.Offer{Name: text(o.Name), Reflected: o.Reflected, Unlisted: o.Unlisted, Assumed: o.Assumed})
	}
	if d := w.Due; d != nil {
		m.Due = &pb.Due{Schedule: text(d.Schedule), Next: stamp(d.Next), Last: stamp(d.Last)}
	}
	m.Instance = b.instance(w.Instance)
	if i := w.Instance; i != nil {
		m.Announcements = encodeAnnouncements(&b, i.Announcements)
		if n := i.Notify; n != nil {
			m.Notify = &pb.Notify{Path: text(n.Path), WatchdogUsec: n.Watchdog.Microseconds(), Watched: n.Watched}
		}
	}
	for _, h := range w.Hooks {
		m.Hooks = append(m.Hooks, &pb.HookRun{Hook: text(h.Hook), Run: b.instance(&h.Instance)})
	}
	m.Found, m.LastExit, m.StoppedBy = b.found(w.Found), b.exit(w.LastExit), encodeOperator(w.StoppedBy)
	for _, e := range w.Exits {
		m.Exits = append(m.Exits, &pb.PastExit{Exit: b.exit(&e.Exit), Reason: text(e.Reason)})
	}
	if b.err != nil {
		return nil, b.err
	}
	return proto.Marshal(m)
}

// code accepts any 32-bit value, signed or unsigned.
func (b *bounds) code(v int) int64 {
	if int64(v) < math.MinInt32 || int64(v) > math.MaxUint32 {
		b.err = errors.Join(b.err, fmt.Errorf("exit code %d: more than 32 bits", v))
	}
	return int64(v)
}

func decodeWorker(key string, value []byte) (Worker, error) {
	var m pb.Worker
	if err := proto.Unmarshal(value, &m); err != nil {
		return Worker{}, err
	}
	if m.GetId() != key {
		return Worker{}, fmt.Errorf("record says that it is of worker %q", m.GetId())
	}
	desired, err1 := lookup(desiredNames, "desired state", m.GetDesired())
	status, err2 := lookup(statusNames, "status", m.GetStatus())
	instance, err3 := decodeInstance(m.GetInstance(), m.GetAnnouncements())
	exit, err4 := decodeExit(m.GetLastExit())
	due, err5 := decodeDue(m.GetDue())
	found, err6 := decodeFound(m.GetFound())
	hooks, err7 := decodeHooks(m.GetHooks())
	exits, err8 := decodeExits(m.GetExits())
	var b bounds
	b.int32("port", int(m.GetPort()), 0, maxPort)
	if err := errors.Join(checkID(key), err1, err2, err3, err4, err5, err6, err7, err8, b.err); err != nil {
		return Worker{}, err
	}
	if n := m.GetNotify(); n != nil && instance != nil {
		instance.Notify = &Notify{
			Path: n.GetPath(), Watched: n.GetWatched(),
			Watchdog: time.Duration(min(max(n.GetWatchdogUsec(), 0), maxWatchdog)) * time.Microsecond,
		}
	}
	var offers []Offer
	for _, o := range m.GetServices() {
		offers = append(offers, Offer{
			Name: o.GetName(), Reflected: o.GetReflected(), Unlisted: o.GetUnlisted(), Assumed: o.GetAssumed(),
		})
	}
	return Worker{
		ID:          key,
		Unit:        m.GetUnit(),
		Desired:     desired,
		Status:      status,
		Reason:      m.GetReason(),
		Instance:    instance,
		Incarnation: m.GetIncarnation(),
		SpecHash:    m.GetSpecHash(),
		Restarts:    m.GetRestarts(),
		History:     decodeHistory(m.GetBudget()),
		LastExit:    exit,
		Exits:       exits,
		Outdated:    m.GetOutdated(),
		Port:        int(m.GetPort()),
		Services:    offers,
		Due:         due,
		SecretKey:   m.GetSecretKey(), EnvironmentMAC: m.GetEnvironmentMac(),
		Hooks: hooks,
		Found: found, StoppedBy: decodeOperator(m.GetStoppedBy()),
	}, nil
}

func decodeHooks(runs []*pb.HookRun) (hooks []HookRun, errs error) {
	for _, m := range runs {
		i, err := decodeInstance(m.GetRun(), nil)
		if err == nil && i == nil {
			err = errors.New("it has neither token nor lease")
		}
		if err != nil {
			errs = errors.Join(errs, fmt.Errorf("run of %q: %w", m.GetHook(), err))
			continue
		}
		hooks = append(hooks, HookRun{Hook: m.GetHook(), Instance: *i})
	}
	return hooks, errs
}

// processMessage is a message that has the identity of a process.
type processMessage interface {
	GetBootId() string
	GetPid() int32
	GetPidfdInode() uint64
	GetStartTicks() uint64
	GetPidNamespace() uint64
}

func decodeProcess(m processMessage, proof identity.Proof) identity.Process {
	return identity.Process{
		BootID:       m.GetBootId(),
		PID:          int(m.GetPid()),
		Inode:        m.GetPidfdInode(),
		StartTicks:   m.GetStartTicks(),
		PIDNamespace: m.GetPidNamespace(),
		Proof:        proof,
	}
}

func decodeFound(m *pb.Found) (*Found, error) {
	if m == nil {
		return nil, nil
	}
	proof, err1 := lookup(proofNames, "proof", m.GetProof())
	started, err2 := readTime("started", m.GetStarted())
	var b bounds
	b.int32("pid of the found process", int(m.GetPid()), 1, math.MaxInt32)
	if err := errors.Join(err1, err2, b.err); err != nil {
		return nil, err
	}
	return &Found{
		Process: decodeProcess(m, proof),
		Name:    m.GetName(),
		Started: started,
	}, nil
}

func decodeDue(m *pb.Due) (*Due, error) {
	if m == nil {
		return nil, nil
	}
	next, err1 := readTime("next due time", m.GetNext())
	last, err2 := readTime("last due time", m.GetLast())
	if err := errors.Join(err1, err2); err != nil {
		return nil, err
	}
	return &Due{Schedule: m.GetSchedule(), Next: next, Last: last}, nil
}

func decodeInstance(m *pb.Instance, announcements []*pb.Announcement) (*Instance, error) {
	if m == nil {
		return nil, nil
	}
	proof, err1 := lookup(proofNames, "proof", m.GetProof())
	started, err2 := readTime("started", m.GetStarted())
	var b bounds
	b.int32("pid", int(m.GetPid()), 0, math.MaxInt32)
	b.int32("instance port", int(m.GetPort()), 0, maxPort)
	announced := decodeAnnouncements(&b, announcements)
	if err := errors.Join(err1, err2, b.err); err != nil {
		return nil, err
	}
	return &Instance{
		Token:   m.GetToken(),
		Process: decodeProcess(m, proof),
		Port:    int(m.GetPort()),
		ExeHash: m.GetExeHash(),
		Started: started,
		Lease:   identity.FileID{Device: m.GetLeaseDevice(), Inode: m.GetLeaseInode()},
		UID:     m.GetUid(),
		OwnPort: m.GetOwnPort(), Announcements: announced,
	}, nil
}

func decodeExit(m *pb.Exit) (*identity.Exit, error) {
	if m == nil {
		return nil, nil
	}
	source, err1 := lookup(exitSourceNames, "exit source", m.GetSource())
	at, err2 := readTime("exit time", m.GetAt())
	var b bounds
	b.int32("signal", int(m.GetSignal()), 0, math.MaxInt32)
	if err := errors.Join(err1, err2, b.err); err != nil {
		return nil, err
	}
	return &identity.Exit{
		Code: int(m.GetCode()), Signal: syscall.Signal(m.GetSignal()), Source: source, At: at,
	}, nil
}

func decodeExits(messages []*pb.PastExit) (exits []PastExit, errs error) {
	for _, m := range messages {
		e, err := decodeExit(m.GetExit())
		if err == nil && e == nil {
			err = errors.New("a past exit is empty")
		}
		if err != nil {
			errs = errors.Join(errs, err)
			continue
		}
		exits = append(exits, PastExit{*e, m.GetReason()})
	}
	return exits, errs
}

func encodeHistory(b RestartHistory) *pb.RestartBudget {
	m := &pb.RestartBudget{
		BackoffNs:    int64(b.Backoff),
		ReadyClockNs: int64(b.ReadyClock),
		ReadySinceNs: int64(b.ReadySince),
		RetryAtNs:    int64(b.RetryAt),
		BootId:       text(b.BootID),
		FailedWaitNs: int64(b.FailedWait),
	}
	for _, d := range b.Spent {
		m.SpentNs = append(m.SpentNs, int64(d))
	}
	return m
}

func decodeHistory(m *pb.RestartBudget) RestartHistory {
	b := RestartHistory{
		Backoff:    time.Duration(m.GetBackoffNs()),
		ReadyClock: time.Duration(m.GetReadyClockNs()),
		ReadySince: time.Duration(m.GetReadySinceNs()),
		RetryAt:    time.Duration(m.GetRetryAtNs()),
		BootID:     m.GetBootId(),
		FailedWait: time.Duration(m.GetFailedWaitNs()),
	}
	for _, d := range m.GetSpentNs() {
		b.Spent = append(b.Spent, time.Duration(d))
	}
	return b
}

func encodeUnit(u Unit) ([]byte, error) {
	kind, err := lookup(kindCodes, "kind", u.Kind)
	if err := errors.Join(checkUnitName(u.Name), err); err != nil {
		return nil, err
	}
	var b bounds
	m := &pb.Unit{
		Name:      u.Name,
		Kind:      kind,
		Replicas:  b.int32("replicas", u.Replicas, 0, math.MaxInt32),
		Disabled:  u.Disabled,
		Retired:   u.Retired,
		SpecHash:  text(u.SpecHash),
		Changed:   stamp(u.Changed),
		ChangedBy: encodeOperator(u.ChangedBy),
		SecretKey: text(u.SecretKey), EnvironmentMac: text(u.EnvironmentMAC),
	}
	if r := u.Rollout; r != nil {
		m.Rollout = &pb.Rollout{Act: text(string(r.Act)), Spare: r.Spare, Operator: encodeOperator(r.Operator)}
		for _, w := range r.Workers {
			m.Rollout.Workers = append(m.Rollout.Workers,
				&pb.RolloutWorker{Id: text(w.ID), Incarnation: w.Incarnation})
		}
	}
	if u.Scale != nil {
		m.Scale = new(b.int32("scale", *u.Scale, 0, math.MaxInt32))
	}
	if b.err != nil {
		return nil, b.err
	}
	return proto.Marshal(m)
}

func decodeUnit(key string, value []byte) (Unit, error) {
	var m pb.Unit
	if err := proto.Unmarshal(value, &m); err != nil {
		return Unit{}, err
	}
	if m.GetName() != key {
		return Unit{}, fmt.Errorf("record says that it is of unit %q", m.GetName())
	}
	kind, err1 := lookup(kindNames, "kind", m.GetKind())
	changed, err2 := readTime("changed", m.GetChanged())
	var b bounds
	b.int32("replicas", int(m.GetReplicas()), 0, math.MaxInt32)
	b.int32("scale", int(m.GetScale()), 0, math.MaxInt32)
	if err := errors.Join(checkUnitName(key), err1, err2, b.err); err != nil {
		return Unit{}, err
	}
	u := Unit{
		Name:      key,
		Kind:      kind,
		Replicas:  int(m.GetReplicas()),
		Disabled:  m.GetDisabled(),
		Retired:   m.GetRetired(),
		SpecHash:  m.GetSpecHash(),
		Changed:   changed,
		ChangedBy: decodeOperator(m.GetChangedBy()),
		SecretKey: m.GetSecretKey(), EnvironmentMAC: m.GetEnvironmentMac(),
	}
	if m.Scale != nil {
		u.Scale = new(int(m.GetScale()))
	}
	if r := m.GetRollout(); r != nil {
		u.Rollout = &Rollout{
			Act: RolloutAct(r.GetAct()), Spare: r.GetSpare(), Operator: decodeOperator(r.GetOperator()),
		}
		for _, w := range r.GetWorkers() {
			u.Rollout.Workers = append(u.Rollout.Workers, RolloutWorker{w.GetId(), w.GetIncarnation()})
		}
	}
	return u, nil
}

func encodeEvent(e Event) ([]byte, error) {
	return proto.Marshal(&pb.Event{
		Time:   stamp(e.Time),
		Worker: text(e.Worker),
		Unit:   text(e.Unit),
		Type:   text(e.Type),
		Detail: text(e.Detail),

		Operator: encodeOperator(e.Operator),
	})
}

func encodeOperator(o *Operator) *pb.Operator {
	if o == nil {
		return nil
	}
	return &pb.Operator{Uid: o.UID, Command: text(o.Command)}
}

func decodeEvent(value []byte) (Event, error) {
	var m pb.Event
	if err := proto.Unmarshal(value, &m); err != nil {
		return Event{}, err
	}
	at, err := readTime("time", m.GetTime())
	if err != nil {
		return Event{}, err
	}
	return Event{
		Time: at, Worker: m.GetWorker(), Unit: m.GetUnit(), Type: m.GetType(), Detail: m.GetDetail(),
		Operator: decodeOperator(m.GetOperator()),
	}, nil
}

func decodeOperator(m *pb.Operator) *Operator {
	if m == nil {
		return nil
	}
	return &Operator{UID: m.GetUid(), Command: m.GetCommand()}
}

func encodeMeta(m Meta) ([]byte, error) {
	return proto.Marshal(&pb.Meta{
		MasterId:        text(m.MasterID),
		Created:         stamp(m.Created),
		StateDirDevice:  m.StateDir.Device,
		StateDirInode:   m.StateDir.Inode,
		CleanShutdown:   m.CleanShutdown,
		CountShortSince: stamp(m.CountShortSince),
	})
}

func decodeMeta(value []byte) (Meta, error) {
	var m pb.Meta
	if err := proto.Unmarshal(value, &m); err != nil {
		return Meta{}, err
	}
	created, err1 := readTime("created", m.GetCreated())
	short, err2 := readTime("count short since", m.GetCountShortSince())
	if err := errors.Join(err1, err2); err != nil {
		return Meta{}, err
	}
	if !ValidUUID(m.GetMasterId()) {
		return Meta{}, fmt.Errorf("master id %q is no UUID", m.GetMasterId())
	}
	return Meta{
		MasterID:        m.GetMasterId(),
		Created:         created,
		StateDir:        identity.FileID{Device: m.GetStateDirDevice(), Inode: m.GetStateDirInode()},
		CleanShutdown:   m.GetCleanShutdown(),
		CountShortSince: short,
	}, nil
}

func registrationKey(service, address string) string { return service + " " + address }

// maxRegistrationPart bounds a service's name and an address, in bytes.
const maxRegistrationPart = 512

func checkRegistration(service, address string) error {
	for what, value := range map[string]string{"service": service, "address": address} {
		switch {
		case value == "":
			return fmt.Errorf("registration: %s: required", what)
		case len(value) > maxRegistrationPart:
			return fmt.Errorf("registration: %s: %d bytes, at most %d", what, len(value), maxRegistrationPart)
		case text(value) != value || strings.Contains(value, " "):
			return fmt.Errorf("registration: %s %q: must be UTF-8 without blanks", what, value)
		}
	}
	return nil
}

func encodeRegistration(r Registration) ([]byte, error) {
	if err := checkRegistration(r.Service, r.Address); err != nil {
		return nil, err
	}
	if r.TTL < 0 {
		return nil, fmt.Errorf("registration: ttl %s: must be 0 or more", r.TTL)
	}
	return proto.Marshal(&pb.Registration{
		Service: r.Service, Address: r.Address, TtlNs: int64(r.TTL), Registered: stamp(r.Registered),
	})
}

func decodeRegistration(key string, value []byte) (Registration, error) {
	var m pb.Registration
	if err := proto.Unmarshal(value, &m); err != nil {
		return Registration{}, err
	}
	registered, err := readTime("registered", m.GetRegistered())
	if err := errors.Join(err, checkRegistration(m.GetService(), m.GetAddress())); err != nil {
		return Registration{}, err
	}
	if registrationKey(m.GetService(), m.GetAddress()) != key {
		return Registration{}, fmt.Errorf("record says that it is of %q at %q", m.GetService(), m.GetAddress())
	}
	if m.GetTtlNs() < 0 {
		return Registration{}, fmt.Errorf("ttl is %d", m.GetTtlNs())
	}
	return Registration{
		Service: m.GetService(), Address: m.GetAddress(), TTL: time.Duration(m.GetTtlNs()), Registered: registered,
	}, nil
}

// StoredResult is a result as stored in the file.
type StoredResult struct {
	Result
	Sequence uint64
	BootTime time.Duration // when it was stored, as a reading of the boot clock of bootID
	BootID   string
}

func EncodeResult(r StoredResult) ([]byte, error) {
	return proto.Marshal(&pb.Result{
		Method:     text(r.Method),
		Digest:     r.Digest[:],
		Response:   r.Response,
		LeftOut:    r.LeftOut,
		Sequence:   r.Sequence,
		BootTimeNs: int64(r.BootTime),
		BootId:     text(r.BootID),
		Stored:     stamp(r.Stored),
	})
}

func DecodeResult(key, value []byte) (StoredResult, error) {
	if err := CheckRequestID(string(key)); err != nil {
		return StoredResult{}, err
	}
	var m pb.Result
	if err := proto.Unmarshal(value, &m); err != nil {
		return StoredResult{}, err
	}
	stored, err := readTime("stored", m.GetStored())
	if err != nil {
		return StoredResult{}, err
	}
	r := StoredResult{
		Result: Result{
			ID: string(key), Method: m.GetMethod(), Response: m.GetResponse(), LeftOut: m.GetLeftOut(), Stored: stored,
		},
		Sequence: m.GetSequence(), BootTime: time.Duration(m.GetBootTimeNs()), BootID: m.GetBootId(),
	}
	if len(m.GetDigest()) != len(r.Digest) || r.BootTime < 0 || r.LeftOut && len(r.Response) > 0 ||
		len(r.Response) > MaxResponse {
		return StoredResult{}, errors.New("no result of a request")
	}
	copy(r.Digest[:], m.GetDigest())
	return r, nil
}

// CheckRequestID returns an error if id is not a valid request id.
func CheckRequestID(id string) error {
	if id == "" || len(id) > MaxRequestID {
		return fmt.Errorf("request id of %d bytes: must be 1 to %d", len(id), MaxRequestID)
	}
	for i := range len(id) {
		if id[i] < ' ' || id[i] > '~' {
			return fmt.Errorf("request id %q: must be printable ASCII", id)
		}
	}
	return nil
}
