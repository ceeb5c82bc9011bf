package proto

// Version is the release of the HSU core API that this package speaks.
const Version = "v1.0.0"

// ProtocolVersion is the version of the wire protocol, coreservice.proto.
const ProtocolVersion = "1.0"
