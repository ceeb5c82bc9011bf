module github.com/yourorg/my-hsu-master

go 1.26.0

replace github.com/core-tools/hsu-core => ../..

require (
	github.com/core-tools/hsu-core v0.0.0-20250619224703-c67bc8d77724
	github.com/jessevdk/go-flags v1.6.1
	github.com/phayes/freeport v0.0.0-20220201140144-74d24b5ae9f5
	google.golang.org/grpc v1.85.0
	google.golang.org/protobuf v1.36.12
)

require (
	golang.org/x/net v0.60.0 // indirect
	golang.org/x/sys v0.48.0 // indirect
	golang.org/x/text v0.42.0 // indirect
	google.golang.org/genproto/googleapis/rpc v0.0.0-20260817212433-ac3dfec99bb1 // indirect
)
