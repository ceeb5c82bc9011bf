"""Calls acme.Greeter through the port of a master."""

import argparse

import grpc
from google.protobuf.wrappers_pb2 import StringValue

parser = argparse.ArgumentParser()
parser.add_argument("name", nargs="?", default="world")
parser.add_argument("--master", default="127.0.0.1:50051", metavar="HOST:PORT")
given = parser.parse_args()

with grpc.insecure_channel(given.master) as channel:
    greet = channel.unary_unary("/acme.Greeter/Greet", StringValue.SerializeToString, StringValue.FromString)
    # The call waits for a master that is being started.
    print(greet(StringValue(value=given.name), timeout=10, wait_for_ready=True).value)
