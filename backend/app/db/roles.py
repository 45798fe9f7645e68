"""The role that runs the application: it reads and writes rows, and cannot change the schema.

DATABASE_OWNER_URL names the role that owns the tables and migrates, DATABASE_URL the one that runs.
Each migration prepares the second one, in new databases as in existing ones. With
DATABASE_MONITOR_PASSWORD, it also prepares a role for an exporter of metrics.
"""

import asyncpg
from sqlalchemy import Connection, bindparam, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.types import String
from sqlalchemy.util.concurrency import await_

from app.core.config import SetupError
from app.core.errors import ServiceUnavailable
from app.core.logging import get_logger
from app.db.connecting import connect_to, refused_setting
from app.db.failures import sqlstate

logger = get_logger(__name__)

MONITOR = "pressroom_monitor"
"""The role that reads the statistics of PostgreSQL, and no rows."""
LOGIN_REFUSED = (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)

_ROLE, _PASSWORD = bindparam("role", type_=String), bindparam("password", type_=String)
_MAY_CREATE = text("SELECT rolsuper OR rolcreaterole FROM pg_roles WHERE rolname = current_user")
_LOGIN = text(
    """
    SELECT format('%s ROLE %I LOGIN PASSWORD %L', CASE WHEN EXISTS
      (SELECT FROM pg_roles WHERE rolname = :role) THEN 'ALTER' ELSE 'CREATE' END, :role, :password)
    """
).bindparams(_ROLE, _PASSWORD)
_GRANTS = text(
    """
    SELECT format('GRANT USAGE ON SCHEMA public TO %I', :role)
    WHERE NOT has_schema_privilege(:role, 'public', 'USAGE')
    UNION ALL
    SELECT format('ALTER DEFAULT PRIVILEGES IN SCHEMA public GRANT %s TO %I', privileges, :role)
    FROM (VALUES ('SELECT, INSERT, UPDATE, DELETE ON TABLES'), ('USAGE, UPDATE ON SEQUENCES'))
      AS defaults (privileges)
    UNION ALL
    SELECT CASE relkind
      WHEN 'S' THEN format('GRANT USAGE, UPDATE ON SEQUENCE %s TO %I', oid::regclass, :role)
      ELSE format('GRANT SELECT, INSERT, UPDATE, DELETE ON TABLE %s TO %I', oid::regclass, :role)
    END
    FROM pg_class
    WHERE relnamespace = 'public'::regnamespace AND relowner = current_user::regrole
      AND CASE relkind
        WHEN 'S' THEN NOT (
          has_sequence_privilege(:role, oid, 'USAGE')
          AND has_sequence_privilege(:role, oid, 'UPDATE')
        )
        WHEN 'r' THEN NOT (
          SELECT bool_and(has_table_privilege(:role, oid, privilege))
          FROM (VALUES ('SELECT'), ('INSERT'), ('UPDATE'), ('DELETE')) AS needed (privilege)
        )
        ELSE false
      END
    """
).bindparams(_ROLE)
"""Statements for what the role lacks. Each owner has default privileges for its future tables."""
_MAY_MONITOR = text("SELECT pg_has_role(:role, 'pg_monitor', 'USAGE')").bindparams(_ROLE)
_MAY_GRANT = text(
    """
    SELECT rolsuper OR (rolcreaterole AND pg_has_role('pg_monitor', 'USAGE WITH ADMIN OPTION'))
    FROM pg_roles WHERE rolname = current_user
    """
)


_OF_ROLE = text(
    """
    SELECT coalesce(setconfig, '{}') FROM pg_roles
    LEFT JOIN pg_db_role_setting ON setrole = pg_roles.oid AND setdatabase = 0
    WHERE rolname = :role
    """
).bindparams(_ROLE)
_SET = text("SELECT format('ALTER ROLE %I SET %I = %L', :role, :name, :value)").bindparams(
    _ROLE, bindparam("name", type_=String), bindparam("value", type_=String)
)
INSUFFICIENT_PRIVILEGE = "42501"


def parameters_of_sessions(statement_timeout: float) -> dict[str, str]:
    """Return parameters of PostgreSQL for the sessions of the application.

    `statement_timeout` is in seconds.
    """
    timeout_ms = int(statement_timeout * 1000)
    return {
        "statement_timeout": str(timeout_ms),
        "idle_in_transaction_session_timeout": str(timeout_ms * 2),
        "jit": "off",
    }


def prepare_sessions(connection: Connection, *, url: str, statement_timeout: float) -> None:
    """Store the parameters of sessions for the role of `url`: a pooler does not pass them on.

    Without the privilege, there is a warning.
    """
    role = make_url(url).username
    wanted = parameters_of_sessions(statement_timeout)
    current = set(connection.scalar(_OF_ROLE, {"role": role}) or ())
    try:
        for name, value in wanted.items():
            if f"{name}={value}" not in current:
                statement = connection.scalar(_SET, {"role": role, "name": name, "value": value})
                connection.exec_driver_sql(str(statement))
        connection.commit()
    except DBAPIError as error:
        connection.rollback()
        if sqlstate(error.orig) != INSUFFICIENT_PRIVILEGE:
            raise
        needed = ", ".join(f"{name} = {value}" for name, value in wanted.items())
        logger.warning(f"an administrator must set for the role {role}: {needed}")


def prepare(connection: Connection, *, url: str) -> None:
    """Let the role of `url` log in, and read and write the rows of all tables.

    `connection` belongs to the owner of the tables. The caller has locked out other migrations.
    Raises SetupError if the role cannot log in and the owner may not create roles.
    """
    role, password = make_url(url).username, make_url(url).password
    owner = connection.scalar(text("SELECT current_user"))
    connection.commit()  # Alembic begins its own transactions
    if role is None or role == owner:
        return
    if not await_(_can_log_in(url, "DATABASE_URL")):
        if not connection.scalar(_MAY_CREATE):
            raise SetupError(
                f"The role {role} of DATABASE_URL cannot log in, and the role of DATABASE_OWNER_URL"
                " may not create roles: create it, or change its password, as an administrator"
            )
        statement = connection.scalar(_LOGIN, {"role": role, "password": password})
        connection.exec_driver_sql(str(statement))
    for statement in connection.scalars(_GRANTS, {"role": role}).all():
        connection.exec_driver_sql(statement)
    connection.commit()


def prepare_monitor(connection: Connection, *, password: str) -> None:
    """Let the role MONITOR log in with this password, and read the statistics of PostgreSQL.

    `connection` belongs to the owner of the tables. The caller has locked out other migrations.
    Raises SetupError if the owner may not create or grant the role.
    """
    url = connection.engine.url.set(username=MONITOR, password=password)
    text_of_url = url.render_as_string(hide_password=False)
    is_ready = await_(_can_log_in(text_of_url, "DATABASE_OWNER_URL")) and connection.scalar(
        _MAY_MONITOR, {"role": MONITOR}
    )
    if not is_ready:
        if not connection.scalar(_MAY_GRANT):
            raise SetupError(
                f"The role of DATABASE_OWNER_URL may not create {MONITOR}: create it as an"
                " administrator (docs/operations/observe.md), or unset DATABASE_MONITOR_PASSWORD"
            )
        statement = connection.scalar(_LOGIN, {"role": MONITOR, "password": password})
        connection.exec_driver_sql(str(statement))
        connection.exec_driver_sql(f"ALTER ROLE {MONITOR} CONNECTION LIMIT 5")
        connection.exec_driver_sql(f"GRANT pg_monitor TO {MONITOR}")
    connection.commit()


async def _can_log_in(url: str, setting: str) -> bool:
    """Return whether PostgreSQL accepts user and password.

    Raises SetupError if it refuses the connection for another reason, and ServiceUnavailable.
    The message of the former names the setting.
    """
    try:
        connection = await connect_to(url)
    except ServiceUnavailable as error:
        if isinstance(error.__cause__, LOGIN_REFUSED):
            return False
        raise refused_setting(error, setting) or error from error.__cause__
    await connection.close()
    return True
