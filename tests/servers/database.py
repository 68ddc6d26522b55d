# This Source Code Form is subject to the terms of the Mozilla Public
# License, v. 2.0. If a copy of the MPL was not distributed with this
# file, You can obtain one at https://mozilla.org/MPL/2.0/.

"""A schema in a PostgreSQL server, as plain SQL sees it."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import sql

from tests.servers.postgresql import PostgreSQL


@dataclass
class Database:
    """A schema of its own, and a plain connection that has it as its search path."""

    server: PostgreSQL
    schema: str
    connection: psycopg.Connection[Any]

    @property
    def uri(self) -> str:
        return self.server.uri(schema=self.schema)

    def rows(self, query: str, *parameters: object) -> list[Any]:
        return self.connection.execute(query, parameters).fetchall()

    def run(self, script: str) -> None:
        self.connection.execute(script)

    def role(self) -> str:
        """Make a role that may do nothing, and return its name."""
        name = self.server.new_name()
        role, password = sql.Identifier(name), sql.Literal(self.server.password)
        query = sql.SQL("CREATE ROLE {} LOGIN PASSWORD {}").format(role, password)
        self.connection.execute(query)
        return name

    def uri_of(self, role: str) -> str:
        return self.uri.replace(f"//{self.server.user}:", f"//{role}:")


@contextmanager
def schema_on(server: PostgreSQL) -> Iterator[Database]:
    """A new schema; the time of its connection is not ours."""
    schema = server.new_name()
    options = f"-c search_path={schema},public -c timezone=America/Los_Angeles"
    with server.connect(options=options) as connection:
        yield Database(server, schema, connection)
