BEGIN TRANSACTION;
CREATE TABLE commits (
    id INTEGER PRIMARY KEY,
    repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    oid TEXT NOT NULL,
    parent INTEGER REFERENCES commits (id) ON DELETE CASCADE,
    author TEXT NOT NULL,
    date TEXT NOT NULL,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    card TEXT NOT NULL,
    UNIQUE (repository, oid)
);
INSERT INTO "commits" VALUES(1,2,'53f4fc2bf7e58f54ff9591fe9f229e8b0cca4bf2',NULL,'ann','2026-11-27T15:14:00.524Z','initial commit','','');
INSERT INTO "commits" VALUES(3,2,'8da8f37048befa11770cf2fab2425554df012e21',1,'ann','2026-11-27T15:14:00.576Z','first','','');
INSERT INTO "commits" VALUES(4,2,'3495215b68b26664447549ca8fec2897a571644d',3,'ann','2026-11-27T15:14:00.596Z','second','','{"tags": ["old"]}');
CREATE TABLE entries (
    commit_id INTEGER NOT NULL REFERENCES commits (id) ON DELETE CASCADE,
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    oid TEXT NOT NULL,
    lfs INTEGER NOT NULL,
    changed INTEGER NOT NULL,
    PRIMARY KEY (commit_id, path)
) WITHOUT ROWID;
INSERT INTO "entries" VALUES(1,'.gitattributes','94aa2444cd9b2e10764f163e7ad0c53606fee3cee245f9c62e60e85b33120e1b',1365,'69c454130883004f62d7051e31d7f1a30638d58e',0,1);
INSERT INTO "entries" VALUES(3,'.gitattributes','94aa2444cd9b2e10764f163e7ad0c53606fee3cee245f9c62e60e85b33120e1b',1365,'69c454130883004f62d7051e31d7f1a30638d58e',0,1);
INSERT INTO "entries" VALUES(3,'a/b.txt','7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed',3,'43dd47ea691c90a5fa7827892c70241913351963',0,3);
INSERT INTO "entries" VALUES(3,'w.bin','e96760a87768717bcebcfd25ddc7d46b4dbc95a4b0014def080c08539f7d90d0',10240,'4235e81050c5f7da0941cb713e30671cc9c6d9cf',1,3);
INSERT INTO "entries" VALUES(4,'.gitattributes','94aa2444cd9b2e10764f163e7ad0c53606fee3cee245f9c62e60e85b33120e1b',1365,'69c454130883004f62d7051e31d7f1a30638d58e',0,1);
INSERT INTO "entries" VALUES(4,'README.md','6b9916b0e04afb7560ca6d7afd45978d2413bf738d3d86acdaf610142c698e43',20,'ca4268f7d8aec180fb22e8a1309382c05a0d77f5',0,4);
INSERT INTO "entries" VALUES(4,'c.txt','3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3',3,'64c5e5885a4b06010b3a0c20edb7900dd0311025',0,4);
INSERT INTO "entries" VALUES(4,'w.bin','e96760a87768717bcebcfd25ddc7d46b4dbc95a4b0014def080c08539f7d90d0',10240,'4235e81050c5f7da0941cb713e30671cc9c6d9cf',1,3);
CREATE TABLE grants (
    repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    sha256 TEXT NOT NULL,
    size INTEGER NOT NULL,
    PRIMARY KEY (repository, sha256)
) WITHOUT ROWID;
INSERT INTO "grants" VALUES(2,'3fc4ccfe745870e2c0d99f71f30ff0656c8dedd41cc1d7d3d376b0dbe685e2f3',3);
INSERT INTO "grants" VALUES(2,'6b9916b0e04afb7560ca6d7afd45978d2413bf738d3d86acdaf610142c698e43',20);
INSERT INTO "grants" VALUES(2,'7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed',3);
INSERT INTO "grants" VALUES(2,'94aa2444cd9b2e10764f163e7ad0c53606fee3cee245f9c62e60e85b33120e1b',1365);
INSERT INTO "grants" VALUES(2,'e96760a87768717bcebcfd25ddc7d46b4dbc95a4b0014def080c08539f7d90d0',10240);
CREATE TABLE labels (
    repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    label TEXT NOT NULL COLLATE NOCASE,
    PRIMARY KEY (repository, label)
) WITHOUT ROWID;
INSERT INTO "labels" VALUES(2,'old');
CREATE TABLE namespaces (
    name TEXT PRIMARY KEY COLLATE NOCASE,
    kind TEXT NOT NULL CHECK (kind IN ('user', 'organisation'))
) WITHOUT ROWID;
INSERT INTO "namespaces" VALUES('ann','user');
INSERT INTO "namespaces" VALUES('team','organisation');
CREATE TABLE refs (
    repository INTEGER NOT NULL REFERENCES repositories (id) ON DELETE CASCADE,
    name TEXT NOT NULL,
    kind TEXT NOT NULL CHECK (kind IN ('branch', 'tag')),
    commit_id INTEGER NOT NULL REFERENCES commits (id) ON DELETE CASCADE,
    PRIMARY KEY (repository, name)
) WITHOUT ROWID;
INSERT INTO "refs" VALUES(2,'main','branch',4);
INSERT INTO "refs" VALUES(2,'v1.0','tag',3);
CREATE TABLE repositories (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('model', 'dataset')),
    owner TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL COLLATE NOCASE,
    private INTEGER NOT NULL,
    gated TEXT NOT NULL CHECK (gated IN ('', 'auto', 'manual')),
    created TEXT NOT NULL,
    modified TEXT NOT NULL,
    UNIQUE (kind, owner, name)
);
INSERT INTO "repositories" VALUES(2,'model','team','mini',0,'','2026-11-27T15:14:00.524Z','2026-11-27T15:14:00.596Z');
CREATE TABLE settings (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
INSERT INTO "settings" VALUES('secret',X'FF53C2186A2441020FB8D06B332D7FF6E8F21FF352AA40E203D34D0A7285068B');
CREATE TABLE tokens (
    id TEXT PRIMARY KEY,
    digest TEXT NOT NULL UNIQUE,
    user TEXT NOT NULL REFERENCES namespaces (name),
    role TEXT NOT NULL CHECK (role IN ('read', 'write')),
    organisations TEXT NOT NULL,
    created TEXT NOT NULL,
    revoked TEXT
) WITHOUT ROWID;
INSERT INTO "tokens" VALUES('379e8b8d','2e2e295ff52cc680ba6d0e2ce42bb4fbc60a98382e0646dd9b93de0f5775546d','ann','write','["team"]','2026-11-27T15:14:00.439Z',NULL);
CREATE INDEX repositories_modified ON repositories (kind, modified, id);
CREATE INDEX commits_parent ON commits (parent);
CREATE INDEX refs_commit ON refs (commit_id);
CREATE INDEX grants_sha256 ON grants (sha256);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('repositories',3);
COMMIT;
PRAGMA user_version = 1;
