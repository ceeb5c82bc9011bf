package config

import (
	"math"
	"time"
)

// Limits bound the resources of a worker. Nil means no limit besides those of the master.
type Limits struct {
	OpenFiles *int
	Core      *Size
	Memory    *Size
	CPU       *float64 // in processors
	PIDs      *int
	Enforce   Enforce
}

// Enforce is what happens if this host cannot enforce a limit.
type Enforce string

// The values of Enforce.
const (
	BestEffort Enforce = "best-effort"
	Required   Enforce = "required"
)

func (l *Limits) keys() []key {
	return []key{
		{
			name: "open_files", value: optional(&l.OpenFiles, positive), change: restartsWorker,
			doc: "descriptors of each process",
		},
		{name: "core", value: optional(&l.Core, anySize), change: restartsWorker, doc: "size of core dumps"},
		{
			name: "memory", value: optional(&l.Memory, memory),
			doc: "memory of the worker and its descendants together",
		},
		{
			name: "cpu", value: optional(&l.CPU, processors),
			doc: "processors that they can use together, such as 1.5",
		},
		{
			name: "pids", value: optional(&l.PIDs, processes),
			doc: "processes and threads of the worker and its descendants",
		},
		{
			name: "enforce", value: oneOf(&l.Enforce, BestEffort, Required), def: "best-effort",
			doc: "whether a worker starts although `memory`, `cpu` or `pids` cannot be enforced",
		},
	}
}

func positive(at *int) value { return number(at, 1, math.MaxInt32) }

func anySize(at *Size) value { return size(at, 0) }

// memory is enough for a program to start.
func memory(at *Size) value { return size(at, 1<<20) }

// processors is a part of the time that cpu.max can limit.
func processors(at *float64) value { return fraction(at, 0.01) }

// processes is at most what Linux can have.
func processes(at *int) value { return number(at, 1, 1<<22) }

// Log is where the output of the workers goes.
type Log struct {
	To       LogTarget
	MaxSize  Size
	MaxAge   time.Duration // 0 means any
	Keep     int
	Compress bool
}

// LogTarget is where the output of a worker goes.
type LogTarget string

// The values of LogTarget.
const (
	LogToFile    LogTarget = "file"
	LogToJournal LogTarget = "journal"
	LogToInherit LogTarget = "inherit" // the output of the master
)

func (l *Log) keys() []key {
	return []key{
		{
			name: "to", value: oneOf(&l.To, LogToFile, LogToJournal, LogToInherit), def: "file",
			change: restartsWorker,
			doc: "a file of each worker, the journal of systemd, or the output of the master; " +
				"the other keys are for files",
		},
		{
			name: "max_size", value: size(&l.MaxSize, 4096), def: "10MiB",
			doc: "size at which a file is rotated",
		},
		{name: "max_age", value: duration(&l.MaxAge, 0), def: "0", doc: "age at which it is removed; 0 means never"},
		{name: "keep", value: number(&l.Keep, 0, 1_000), def: "5", doc: "number of rotated files to keep"},
		{name: "compress", value: yesNo(&l.Compress), def: "true", doc: "whether rotated files are compressed"},
	}
}
