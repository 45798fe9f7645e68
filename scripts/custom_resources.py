"""Schemas of the custom resources in deploy/kubernetes: the fields that the manifests use.

They belong to CloudNativePG 1.30, its plugin for Barman 0.14, the Gateway API 1.5 and the operator
of Prometheus 0.93. Other fields are errors: add them here, and run `manifests.py check --crds` with
the definitions of these versions.
"""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}
OBJECT: Schema = {"type": "object"}
"""Validated elsewhere, or free."""
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|Ki|Mi|Gi|Ti)?$"}
DURATION: Schema = {"type": "string", "pattern": r"^([0-9]+(ms|s|m|h|d|w))+$"}
NAME: Schema = {"type": "string", "pattern": "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", "maxLength": 253}


def fields(*required: str, **properties: Schema) -> Schema:
    """Return the schema of an object that has only these fields."""
    return {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }


def items(schema: Schema) -> Schema:
    """Return the schema of a list that is not empty."""
    return {"type": "array", "items": schema, "minItems": 1}


def one_of(*values: str) -> Schema:
    """Return the schema of a text with these values."""
    return {"enum": list(values)}


def resource(spec: Schema) -> Schema:
    """Return the schema of an object of Kubernetes."""
    return fields("apiVersion", "kind", "metadata", "spec") | {
        "properties": {
            "apiVersion": TEXT,
            "kind": TEXT,
            "metadata": fields("name", name=NAME, namespace=NAME, labels=TEXTS, annotations=TEXTS),
            "spec": spec,
        }
    }


LIMITS = fields(
    "cpu", "memory", **{"cpu": QUANTITY, "memory": QUANTITY, "ephemeral-storage": QUANTITY}
)
RESOURCES = fields("requests", "limits", requests=LIMITS, limits=LIMITS)
SECRET_KEY = fields("name", "key", name=NAME, key=TEXT)
SPREAD = items(
    fields(
        "topologyKey", "maxSkew", "whenUnsatisfiable", "labelSelector",
        topologyKey=TEXT, maxSkew=COUNT, labelSelector=OBJECT,
        whenUnsatisfiable=one_of("DoNotSchedule", "ScheduleAnyway"),
    )
)  # fmt: skip
BARMAN = one_of("barman-cloud.cloudnative-pg.io")
STORE = fields("barmanObjectName", "serverName", barmanObjectName=NAME, serverName=NAME)
STORAGE = fields("size", size=QUANTITY, storageClass=NAME)

CLUSTER = fields(
    "instances", "imageName", "bootstrap", "postgresql", "plugins", "storage", "resources",
    instances=COUNT, imageName=TEXT, enableSuperuserAccess=FLAG, enablePDB=FLAG,
    primaryUpdateStrategy=one_of("unsupervised", "supervised"),
    primaryUpdateMethod=one_of("switchover", "restart"),
    bootstrap={
        "oneOf": [
            fields(
                "initdb",
                initdb=fields(
                    "database", "owner",
                    database=TEXT, owner=TEXT, encoding=TEXT, dataChecksums=FLAG,
                    localeProvider=one_of("builtin", "icu", "libc"),
                    builtinLocale=TEXT, localeCollate=TEXT, localeCType=TEXT,
                ),
            ),
            fields(
                "recovery",
                recovery=fields(
                    "source", source=NAME, database=TEXT, owner=TEXT,
                    recoveryTarget=fields("targetTime", targetTime=TEXT),
                ),
            ),
        ]
    },
    externalClusters=items(
        fields("name", "plugin", name=NAME, plugin=fields("name", name=BARMAN, parameters=STORE))
    ),
    managed=fields(
        roles=items(
            fields(
                "name",
                name=TEXT, ensure=one_of("present", "absent"), login=FLAG, createrole=FLAG,
            )
        ),
        services=fields(
            additional=items(
                fields(
                    "selectorType", "serviceTemplate",
                    selectorType=one_of("rw", "r", "ro"),
                    serviceTemplate=fields("metadata", metadata=OBJECT, spec=OBJECT),
                )
            )
        ),
    ),
    certificates=fields(serverAltDNSNames=items(TEXT)),
    postgresql=fields(
        parameters=TEXTS,
        synchronous=fields(
            "method", "number",
            method=one_of("any", "first"), number=COUNT | {"minimum": 1}, failoverQuorum=FLAG,
            dataDurability=one_of("required", "preferred"),
        ),
    ),
    plugins=items(
        fields("name", "parameters", name=BARMAN, isWALArchiver=FLAG, parameters=STORE)
    ),
    storage=STORAGE, walStorage=STORAGE, resources=RESOURCES, topologySpreadConstraints=SPREAD,
    affinity=fields(
        enablePodAntiAffinity=FLAG, topologyKey=TEXT,
        podAntiAffinityType=one_of("preferred", "required"),
    ),
)  # fmt: skip
POOLER = fields(
    "cluster", "type", "instances", "pgbouncer",
    cluster=fields("name", name=NAME), type=one_of("rw", "ro", "r"), instances=COUNT,
    pgbouncer=fields(
        "poolMode", image=TEXT, poolMode=one_of("session", "transaction"), parameters=TEXTS
    ),
    deploymentStrategy=fields(
        rollingUpdate=fields(
            maxSurge={"type": ["integer", "string"]}, maxUnavailable={"type": ["integer", "string"]}
        )
    ),
    template=fields(
        metadata=OBJECT,
        spec=fields(
            "containers",
            containers=items(fields("name", name=one_of("pgbouncer"), resources=RESOURCES)),
            topologySpreadConstraints=SPREAD,
        ),
    ),
)  # fmt: skip
OBJECT_STORE = fields(
    "configuration",
    retentionPolicy={"type": "string", "pattern": "^[1-9][0-9]*[dwm]$"},
    configuration=fields(
        "destinationPath",
        destinationPath={"type": "string", "pattern": "^s3://"}, endpointURL=TEXT,
        s3Credentials=fields(
            "accessKeyId", "secretAccessKey", accessKeyId=SECRET_KEY, secretAccessKey=SECRET_KEY
        ),
        wal=fields(compression=one_of("gzip", "lz4", "zstd"), maxParallel=COUNT),
        data=fields(compression=one_of("gzip", "bzip2")),
    ),
    instanceSidecarConfiguration=fields(resources=RESOURCES),
)  # fmt: skip
SCHEDULED_BACKUP = fields(
    "schedule", "cluster", "method",
    schedule={"type": "string", "pattern": r"^\S+( \S+){5}$"}, immediate=FLAG,
    backupOwnerReference=one_of("none", "self", "cluster"), cluster=fields("name", name=NAME),
    method=one_of("plugin"), pluginConfiguration=fields("name", name=BARMAN),
    target=one_of("primary", "prefer-standby"),
)  # fmt: skip
HTTP_ROUTE = fields(
    "parentRefs", "rules",
    parentRefs=items(fields("name", name=NAME, namespace=NAME, sectionName=NAME)),
    hostnames=items(TEXT),
    rules=items(
        fields(
            "backendRefs",
            backendRefs=items(fields("name", "port", name=NAME, port=COUNT)),
            timeouts=fields(request=DURATION, backendRequest=DURATION),
        )
    ),
)  # fmt: skip
RELABELINGS = items(
    fields(
        sourceLabels=items(TEXT), regex=TEXT, targetLabel=TEXT, replacement=TEXT,
        action=one_of("replace", "keep", "drop"),
    )
)  # fmt: skip
ENDPOINTS = items(
    fields(
        "port",
        port=TEXT, interval=DURATION, honorLabels=FLAG,
        relabelings=RELABELINGS, metricRelabelings=RELABELINGS,
    )
)  # fmt: skip
SERVICE_MONITOR = fields(
    "selector", "endpoints", jobLabel=TEXT, selector=OBJECT, endpoints=ENDPOINTS
)
POD_MONITOR = fields(
    "selector", "podMetricsEndpoints", jobLabel=TEXT, selector=OBJECT, podMetricsEndpoints=ENDPOINTS
)
RULE = fields(
    "expr", **{"alert": TEXT, "record": TEXT, "expr": TEXT, "for": DURATION},
    labels=TEXTS, annotations=TEXTS,
)  # fmt: skip
PROMETHEUS_RULE = fields(
    "groups", groups=items(fields("name", "rules", name=TEXT, rules=items(RULE)))
)

SCHEMAS = {
    ("postgresql.cnpg.io/v1", "Cluster"): resource(CLUSTER),
    ("postgresql.cnpg.io/v1", "Pooler"): resource(POOLER),
    ("postgresql.cnpg.io/v1", "ScheduledBackup"): resource(SCHEDULED_BACKUP),
    ("barmancloud.cnpg.io/v1", "ObjectStore"): resource(OBJECT_STORE),
    ("gateway.networking.k8s.io/v1", "HTTPRoute"): resource(HTTP_ROUTE),
    ("monitoring.coreos.com/v1", "ServiceMonitor"): resource(SERVICE_MONITOR),
    ("monitoring.coreos.com/v1", "PodMonitor"): resource(POD_MONITOR),
    ("monitoring.coreos.com/v1", "PrometheusRule"): resource(PROMETHEUS_RULE),
}
"""The schemas by apiVersion and kind."""
