package records

import (
	"strings"
	"time"

	"github.com/core-tools/hsu-master/identity"
)

// The samples have a value in every field.

var sampleTime = time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC)

func sampleWorker(id string) Worker {
	return Worker{
		ID: id, Unit: "unit", Desired: DesiredRunning, Status: StatusUnhealthy, Reason: "no answer to 3 pings",
		Instance: &Instance{
			Token: "00112233445566778899aabbccddeeff",
			Process: identity.Process{
				PID: 4712, Inode: 1 << 40, StartTicks: 987654321,
				BootID: "5c7e1f9e-0000-4000-8000-000000000001", PIDNamespace: 4026531836,
				Proof: identity.ProofPidfdInode,
			},
			Port: 40001, ExeHash: strings.Repeat("ab", 32), Started: sampleTime,
			Lease: identity.FileID{Device: 66305, Inode: 1234}, UID: 1000,
			Notify: &Notify{Path: "/run/hsu/worker-0.notify", Watchdog: 5 * time.Second, Watched: true},
		},
		Incarnation: 7, SpecHash: "spec", Restarts: 6,
		History: RestartHistory{
			Backoff: 200 * time.Millisecond, Spent: []time.Duration{time.Second, time.Minute}, ReadyClock: time.Hour,
			ReadySince: 5 * time.Hour, RetryAt: 6 * time.Hour, BootID: "5c7e1f9e-0000-4000-8000-000000000001",
			FailedWait: 20 * time.Minute,
		},
		LastExit: &identity.Exit{Signal: 9, Source: identity.ExitPidfd, At: sampleTime.Add(time.Second)},
		Exits: []PastExit{
			{identity.Exit{Code: 3, Source: identity.ExitWait, At: sampleTime}, "exited with code 3"},
			{identity.Exit{Signal: 9, Source: identity.ExitPidfd, At: sampleTime.Add(time.Second)}, "out of memory"},
		},
		Outdated: true, Port: 40001, Services: []Offer{
			{Name: "pkg.A", Reflected: true}, {Name: "pkg.B", Assumed: true},
		},
		SecretKey: "0123456789abcdef", EnvironmentMAC: strings.Repeat("cd", 32),
		Hooks: []HookRun{{
			Hook: "after",
			Instance: Instance{
				Token: "ffeeddccbbaa99887766554433221100",
				Process: identity.Process{
					StartTicks: 987654322, BootID: "5c7e1f9e-0000-4000-8000-000000000001", PIDNamespace: 4026531836,
				},
				Lease: identity.FileID{Device: 66305, Inode: 1235}, UID: 1000,
			},
		}},
		Due: &Due{Schedule: "0 3 * * * UTC", Next: sampleTime.Add(time.Hour), Last: sampleTime},
	}
}

func sample() Snapshot {
	return Snapshot{
		Meta: Meta{
			MasterID: "0b6ad3ae-2b40-4c5e-9d1c-6f6f1a2b3c4d", Created: sampleTime,
			StateDir: identity.FileID{Device: 66305, Inode: 4242}, CleanShutdown: true,
		},
		Workers: []Worker{
			sampleWorker("worker-0"),
			{
				ID: "worker-2", Desired: DesiredRunning, Status: StatusStarting, Incarnation: 1,
				Instance: &Instance{
					Token: "ffeeddccbbaa99887766554433221100", Port: 40002, OwnPort: true,
					Announcements: []Announcement{
						{Module: "a", PID: 4713, Inode: 1 << 42, StartTicks: 78, APIs: []AnnouncedAPI{
							{ServiceIDs: []string{"s", "t"}, Port: 40002, Protocol: "grpc", Metadata: `{"k":"v"}`}, {},
						}},
						{Module: "b", PID: 1},
					},
				},
			},
			{
				ID: "worker-10", Desired: DesiredStopped, Status: StatusFailed,
				LastExit: &identity.Exit{Code: 3, Source: identity.ExitWait, At: sampleTime},
			},
			{ID: "x", Desired: DesiredStopped, Status: StatusBackoff},
			{
				ID: "y-0", Unit: "y", Desired: DesiredRunning, Status: StatusRunning, Found: &Found{
					Process: identity.Process{
						PID: 815, Inode: 1 << 41, StartTicks: 77, BootID: "5c7e1f9e-0000-4000-8000-000000000001",
						PIDNamespace: 4026531836, Proof: identity.ProofPidfdInode,
					},
					Name: "postgres", Started: sampleTime,
				},
			},
			{ID: "z-0", Unit: "z", Desired: DesiredRunning, Status: StatusAbsent, Reason: "there is no /run/z.pid"},
		},
		Units: []Unit{
			{Name: "old", Kind: KindUnmanaged, Retired: true},
			{
				Name: "worker", Kind: KindIntegrated, Replicas: 2, Scale: new(0), Disabled: true, SpecHash: "spec",
				Changed: sampleTime, ChangedBy: &Operator{UID: 7, Command: "unit disable worker"},
				SecretKey: "0123456789abcdef", EnvironmentMAC: strings.Repeat("ef", 32),
				Rollout: &Rollout{
					Act: ActRestart, Workers: []RolloutWorker{{"worker-0", 6}, {"worker-2", 1}}, Spare: true,
					Operator: &Operator{UID: 1000, Command: "worker restart worker"},
				},
			},
			{Name: "x", Scale: new(1000)},
		},
		Events: []Event{
			{Time: sampleTime, Type: "started"},
			{Time: sampleTime.Add(time.Hour), Worker: "worker-0", Type: "exited", Detail: "killed by SIGKILL"},
			{
				Time: sampleTime.Add(time.Hour), Unit: "worker", Type: "scale", Detail: "2 replicas",
				Operator: &Operator{UID: 1000, Command: "worker scale worker=2"},
			},
		},
	}
}

var sampleResults = []Result{
	{
		ID: "request-1", Method: "/pkg.A/Call", Digest: [32]byte{1, 31: 2}, Response: []byte("answer"),
		Stored: sampleTime,
	},
	{ID: "request-2", Method: "/pkg.A/Call", LeftOut: true, Stored: sampleTime},
}
