"""The tools but for Bucardo (bucardo.py), and the list of all."""
import os
import subprocess
import time

from .bucardo import Bucardo
from .server import WORK
from .tool import Tool


class Native(Tool):
    """Logical replication of PostgreSQL, one way, binary."""

    name = "native"
    conf = {
        "wal_level": "logical",
        "max_wal_senders": "40",
        "max_replication_slots": "40",
        # how soon a worker is started again, here and in pglogical: not what is measured
        "wal_retrieve_retry_interval": "'100ms'",
    }
    replicates = True

    def prepare(self, servers):
        servers[0].sql("CREATE PUBLICATION bench FOR ALL TABLES")

    def begin(self, servers, copy=False):
        first = servers[0]
        for peer in servers[1:]:
            peer.sql(
                f"CREATE SUBSCRIPTION {peer.name} CONNECTION '{first.conninfo()}' PUBLICATION bench "
                f"WITH (binary = true, copy_data = {'true' if copy else 'false'})"
            )
        if not copy:
            for peer in servers[1:]:
                peer.wait_for("SELECT NOT EXISTS (SELECT FROM pg_subscription_rel WHERE srsubstate <> 'r')")

    def hold(self, servers):
        servers[1].sql(f"ALTER SUBSCRIPTION {servers[1].name} DISABLE")
        servers[0].wait_for("SELECT NOT EXISTS (SELECT FROM pg_stat_replication)")

    def release(self, servers):
        servers[1].sql(f"ALTER SUBSCRIPTION {servers[1].name} ENABLE")

    def arrived(self, servers):
        lsn = servers[0].sql("SELECT pg_current_wal_lsn()")
        servers[0].wait_for(f"SELECT coalesce(bool_and(flush_lsn >= '{lsn}'), false) FROM pg_stat_replication")


class Mmrepl(Tool):
    """This extension, both ways."""

    name = "mmrepl"
    conf = {"shared_preload_libraries": "'mmrepl'", "mmrepl.restart_delay": "'100ms'"}
    two_way = True
    replicates = True

    def prepare(self, servers):
        first = servers[0]
        first.sql("CREATE EXTENSION mmrepl")
        for one in servers:
            first.sql(f"SELECT mmrepl.add_db('{one.name}', '{one.conninfo()}')")
        first.sql("SELECT mmrepl.add_all_tables(relgroup => 'bench')")

    def begin(self, servers, copy=False):
        servers[0].sql(
            "SELECT mmrepl.add_sync('bench', relgroup => 'bench', "
            f"dbs => '{{{','.join(one.name + ':source' for one in servers)}}}', onetimecopy => {1 if copy else 0})",
        )
        if not copy:
            self._connected(servers)

    def _connected(self, servers):
        for one in servers:
            one.wait_for("SELECT bool_and(state = 'good') FROM mmrepl.status")

    def labels(self, servers):
        found = {}
        for one in servers:
            with one.session() as s:
                for pid, kind in s.rows("SELECT pid, kind FROM mmrepl.worker_status WHERE pid IS NOT NULL"):
                    found[int(pid)] = "mmrepl " + kind
        return found

    def hold(self, servers):
        servers[0].sql("SELECT mmrepl.pause('bench')")
        time.sleep(0.5)

    def release(self, servers):
        servers[0].sql("SELECT mmrepl.resume('bench')")

    def servers_up(self, servers):
        self._connected(servers)

    def peer_back(self, servers):
        self._connected(servers)

    def arrived(self, servers):
        for one in servers:
            one.sql("SELECT mmrepl.wait_for_sync('bench')")


class Pglogical(Tool):
    """pglogical as Debian has it, one way."""

    name = "pglogical"
    foreign = True
    conf = {
        "wal_level": "logical",
        "shared_preload_libraries": "'pglogical'",
        "output_plugin_libraries": "'pgoutput, pglogical_output'",
        "max_wal_senders": "40",
        "max_replication_slots": "40",
        "wal_retrieve_retry_interval": "'100ms'",
    }
    replicates = True

    def __init__(self, extras):
        self._extras = extras

    def missing(self):
        return self._extras.need("postgresql-15-pglogical", server_files=("pglogical.so", "pglogical.control"))

    def begin(self, servers, copy=False):
        for one in servers:
            one.sql(
                "CREATE EXTENSION pglogical",
                f"SELECT pglogical.create_node('{one.name}', '{one.conninfo()}')",
                "SELECT pglogical.replication_set_add_all_tables('default', '{public}')",
            )
        for peer in servers[1:]:
            peer.sql(
                f"SELECT pglogical.create_subscription('{peer.name}', '{servers[0].conninfo()}', "
                f"synchronize_data := {'true' if copy else 'false'})"
            )
            if not copy:
                peer.wait_for("SELECT bool_and(status = 'replicating') FROM pglogical.show_subscription_status()")

    def hold(self, servers):
        servers[1].sql(f"SELECT pglogical.alter_subscription_disable('{servers[1].name}', true)")
        servers[0].wait_for("SELECT NOT EXISTS (SELECT FROM pg_stat_replication)")

    def release(self, servers):
        servers[1].sql(f"SELECT pglogical.alter_subscription_enable('{servers[1].name}', true)")

    def servers_up(self, servers):
        servers[1].wait_for("SELECT bool_and(status = 'replicating') FROM pglogical.show_subscription_status()")

    arrived = Native.arrived


class EmptyTrigger(Tool):
    """No replication, but a trigger for each row that does nothing: what the server takes for calling one."""

    name = "empty trigger"

    def prepare(self, servers):
        library = os.path.join(WORK, "empty_trigger.so")
        if not os.path.exists(library):
            config = os.environ.get("PG_CONFIG", "pg_config")
            cc, include = (subprocess.run([config, what], check=True, capture_output=True, text=True).stdout.strip()
                           for what in ("--cc", "--includedir-server"))
            source = os.path.join(os.path.dirname(os.path.abspath(__file__)), "empty_trigger.c")
            subprocess.run([*cc.split(), "-O2", "-fPIC", "-shared", "-I" + include, source, "-o", library], check=True)
        for one in servers:
            one.sql(f"CREATE FUNCTION empty_trigger() RETURNS trigger LANGUAGE c AS '{library}'")
            for table in one.sql("SELECT string_agg(tablename, ' ') FROM pg_tables WHERE schemaname = 'public'").split():
                one.sql(f"CREATE TRIGGER empty AFTER INSERT OR UPDATE OR DELETE ON {table} "
                        "FOR EACH ROW EXECUTE FUNCTION empty_trigger()")


def all_tools(extras):
    """Every tool, in the order of the tables."""
    return [Tool(), Native(), Mmrepl(), Pglogical(extras), Bucardo(extras)]
