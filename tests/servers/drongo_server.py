# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""Serves drongo's Pub/Sub on a port: drongo itself takes any port, inside its own process."""

import sys
from concurrent.futures import ThreadPoolExecutor

import grpc
from drongo.services.pubsub.emulator import PubSubEmulator
from google.protobuf import empty_pb2
from google.pubsub_v1 import types

emulator = PubSubEmulator()
emulator._grpc, emulator._pt, emulator._empty = grpc, types, empty_pb2
# One thread: its queues are plain lists without a lock.
server = grpc.server(ThreadPoolExecutor(1))
server.add_generic_rpc_handlers(emulator._build_handlers())
server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
server.start()
server.wait_for_termination()
