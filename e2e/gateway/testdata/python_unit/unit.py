"""A unit of an HSU application in Python: what hsu-master asks of a unit, and
proto.EchoService. It needs grpcio and no generated code: of the messages that
it handles it has to know no more than that an answer looks like a request."""

import argparse
import os
import signal
import sys
from concurrent import futures

import grpc


def ping(request, context):
    return b""


def echo(request, context):
    metadata = dict(context.invocation_metadata())
    context.set_trailing_metadata((("unit", os.environ.get("HSU_WORKER_ID", "")),))
    if "fail-with" in metadata:
        context.abort(grpc.StatusCode[metadata["fail-with"]], "as was asked for: \N{SNOWMAN}")
    return request


def chat(requests, context):
    context.send_initial_metadata((("language", "python"),))
    yield from requests


def unary(handle):
    return grpc.unary_unary_rpc_method_handler(handle)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, required=True)
    port = parser.parse_args().port
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=8), options=(("grpc.so_reuseport", 0),))
    server.add_generic_rpc_handlers((
        grpc.method_handlers_generic_handler("proto.CoreService", {"Ping": unary(ping)}),
        grpc.method_handlers_generic_handler("proto.EchoService", {
            "Echo": unary(echo),
            "Chat": grpc.stream_stream_rpc_method_handler(chat),
        }),
    ))
    if server.add_insecure_port(f"127.0.0.1:{port}") != port:
        sys.exit(f"unit.py: cannot listen on port {port}")
    stopped = []
    signal.signal(signal.SIGTERM, lambda *_: stopped.append(server.stop(grace=5)))
    server.start()
    while not stopped:
        signal.pause()
    stopped[0].wait()


main()
