"""Serves acme.Greeter of greeter.proto on 127.0.0.1, without generated code."""

import argparse
import itertools
import os
import signal
import sys
from concurrent import futures

import grpc
from google.protobuf.wrappers_pb2 import StringValue

GREETING = os.environ.get("GREETING", "Hello")
WORKER = os.environ.get("HSU_WORKER_ID", "nobody's")
SERVING = b"\x08\x01"  # a HealthCheckResponse; Debian has no package of grpc_health.v1

calls = itertools.count(1)


def greet(name, context):
    return StringValue(value=f"{GREETING}, {name.value}! {WORKER}, call {next(calls)}")


def check(request, context):
    return SERVING


def services():
    yield grpc.method_handlers_generic_handler("acme.Greeter", {
        "Greet": grpc.unary_unary_rpc_method_handler(
            greet, request_deserializer=StringValue.FromString, response_serializer=StringValue.SerializeToString),
    })
    yield grpc.method_handlers_generic_handler("grpc.health.v1.Health", {
        "Check": grpc.unary_unary_rpc_method_handler(check),
    })


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port

    # Without SO_REUSEPORT no other process can listen on the same port.
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers(tuple(services()))
    if server.add_insecure_port(f"127.0.0.1:{port}") != port:
        sys.exit(f"cannot listen on port {port}")
    server.start()
    print(f"serving on port {port}", flush=True)

    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    server.stop(grace=3).wait()


signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM, signal.SIGINT})  # before gRPC starts its threads
main()
