module github.com/core-tools/hsu-master/bench

go 1.26.0

toolchain go1.26.8

require (
	github.com/core-tools/hsu-core v0.0.0-20250619224703-c67bc8d77724
	github.com/core-tools/hsu-master v0.0.0
	github.com/goccy/go-yaml v1.19.2
	go.etcd.io/bbolt v1.5.0
	golang.org/x/net v0.60.0
	golang.org/x/sys v0.49.0
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

require (
	github.com/coreos/go-systemd/v22 v22.7.0 // indirect
	github.com/godbus/dbus/v5 v5.2.4 // indirect
	github.com/phayes/freeport v0.0.0-20220201140144-74d24b5ae9f5 // indirect
	github.com/robfig/cron/v3 v3.0.1 // indirect
	github.com/stretchr/testify v1.12.1 // indirect
	github.com/xrash/smetrics v0.0.0-20240521201337-686a1a2994c1 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
)

// What is measured is what is checked out here.
replace (
	github.com/core-tools/hsu-core => ../hsu-core
	github.com/core-tools/hsu-master => ..
)
