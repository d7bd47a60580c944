// What a fake cluster knows, and how it changes by itself once a second. The
// shapes are those of docs/openapi.json.
import { createHash } from 'node:crypto';

const GiB = 2 ** 30;
const alphabet = '0123456789abcdefghjkmnpqrstvwxyz';
const stoneNames = ['granite', 'basalt', 'slate', 'marble', 'flint', 'gneiss', 'chalk', 'shale'];
const services = ['web', 'db', 'mail', 'files', 'erp', 'dns', 'print', 'backup', 'till', 'cctv'];

/** The same seed gives the same 13 characters, so that tests can name things. */
export function idOf(seed) {
  const digest = createHash('sha256').update(seed).digest();
  return Array.from(digest.subarray(0, 13), (b) => alphabet[b % 32]).join('');
}

/** A refusal with a code of the API. */
export class Refusal extends Error {
  constructor(status, code, detail) {
    super(detail);
    this.status = status;
    this.code = code;
  }
}

export class State {
  constructor({ name = 'oslo', nodes = 3, vms = 4, disks = 2, fault = '' } = {}) {
    this.name = name;
    this.id = idOf(`cluster-${name}`);
    this.fault = fault;
    this.started = Date.now();
    this.nodes = [];
    this.disks = [];
    this.volumes = [];
    this.vms = [];
    this.networks = [];
    this.tasks = [];
    this.audit = [];
    this.tokens = [];
    this.history = [];
    this.onChange = () => undefined;
    for (let n = 0; n < nodes; n++) this.#addNode(n, disks, fault);
    for (let v = 0; v < vms; v++) this.#seedVM(v);
    this.volumes.push(this.#volume('debian-13-cloud', 3 * GiB, 'image', 2));
    this.#record('system', 'cluster.init', name);
    for (let s = 300; s > 0; s--) this.sample(Date.now() - s * 1000);
  }

  #addNode(n, disks, fault) {
    const id = idOf(`${this.name}-node-${n}`);
    const name = stoneNames[n % stoneNames.length] + (n < stoneNames.length ? '' : String(n));
    this.nodes.push({
      id,
      name,
      address: `127.0.1.${n + 1}`,
      api: `https://127.0.1.${n + 1}:8443`,
      voter: n < 5,
      leader: n === 0,
      up: !(fault === 'node' && n === 2),
      since: new Date(this.started - 86_400_000 * (n + 1)).toISOString(),
      version: '0.1.0',
      cpus: 8,
      memory_bytes: 32 * GiB,
      hypervisor: true,
      vms_running: 0,
      vms_returning: 0,
      joined: new Date(this.started - 86_400_000 * 30).toISOString(),
    });
    for (let d = 0; d < disks; d++) {
      const bad = fault === 'disk' && n === 1 && d === 0;
      this.disks.push({
        id: idOf(`${this.name}-disk-${n}-${d}`),
        node: id,
        node_name: name,
        path: `/var/lib/drystone/disks/disk${d}`,
        state: bad ? 'failed' : 'online',
        size_bytes: 512 * GiB,
        used_bytes: Math.round((0.2 + 0.07 * ((n * disks + d) % 5)) * 512 * GiB),
        checksum_errors: bad ? 3 : 0,
        repaired: bad ? 2 : 0,
        ...(bad ? { error: 'sync: input/output error' } : {}),
      });
    }
  }

  #volume(name, size, kind, copies, vm = '') {
    const out = this.fault === 'disk' || this.fault === 'node';
    const columns = [];
    const n = this.disks.length;
    for (let c = 0; c < n; c++) {
      const members = [];
      for (let m = 0; m < copies; m++) {
        const d = this.disks[(c + m * Math.max(1, Math.floor(n / copies))) % n];
        const away = d.state !== 'online' || !this.nodes.find((x) => x.id === d.node)?.up;
        members.push({ disk: d.id, node: d.node, state: away ? 'stale' : 'active' });
      }
      columns.push({ members });
    }
    const stale = columns.filter((c) => c.members.some((m) => m.state !== 'active')).length;
    return {
      id: idOf(`${this.name}-vol-${name}`),
      name,
      kind,
      size_bytes: size,
      used_bytes: Math.round(size * 0.37) * copies,
      copies,
      holder: '',
      holder_name: '',
      purpose: '',
      generation: 1,
      epoch: 1,
      state: stale > 0 ? 'degraded' : 'healthy',
      ...(out && stale > 0
        ? { fill: { done_bytes: Math.round(size * 0.3), total_bytes: size } }
        : {}),
      ...(vm === '' ? {} : { attached_to: vm }),
      created: new Date(this.started - 3_600_000).toISOString(),
      columns_total: columns.length,
      columns_out_of_sync: stale,
      columns,
    };
  }

  #seedVM(v) {
    const name = services[v % services.length] + '-' + String(Math.floor(v / services.length) + 1);
    const vm = this.#makeVM(name, 1 + (v % 4), (1 + (v % 4)) * GiB, [
      this.#volume(`${name}-disk0`, 20 * GiB, 'disk', 2),
    ]);
    if (v % 2 === 0) this.#firmware(vm, v % 4 === 0 ? 'uefi-secure' : 'uefi');
    if (v % 4 !== 3) this.#run(vm, this.nodes[v % this.nodes.length]);
  }

  #makeVM(name, cpus, memory, volumes, boot) {
    const vm = {
      id: idOf(`${this.name}-vm-${name}`),
      name,
      cpus,
      memory_bytes: memory,
      priority: 'normal',
      firmware: 'bios',
      strict: false,
      apart: [],
      limits: { iops: 0, bytes_per_second: 0, burst_seconds: 0 },
      disks: volumes.map((x) => x.id),
      nics: [],
      cdroms: [],
      boot_order: ['disk1'],
      cloud_init: false,
      tags: [],
      description: '',
      ...(boot ? { boot } : {}),
      power: 'off',
      node: '',
      node_name: '',
      status: { state: 'stopped', node: '', reason: '', since: new Date().toISOString() },
      created: new Date().toISOString(),
    };
    for (const x of volumes) x.attached_to = vm.id;
    for (const x of volumes) if (!this.volumes.includes(x)) this.volumes.push(x);
    this.vms.push(vm);
    return vm;
  }

  #firmware(vm, firmware) {
    vm.firmware = firmware;
    this.volumes = this.volumes.filter((x) => x.id !== vm.nvram);
    delete vm.nvram;
    if (firmware === 'bios') return;
    const v = this.#volume(`${vm.name}-nvram`, 2 ** 20, 'nvram', 2, vm.id);
    this.volumes.push(v);
    vm.nvram = v.id;
  }

  #run(vm, node) {
    vm.power = 'on';
    vm.node = node.id;
    vm.node_name = node.name;
    vm.status = { state: 'running', node: node.id, reason: '', since: new Date().toISOString() };
    for (const d of vm.disks) {
      const x = this.volumes.find((y) => y.id === d);
      if (x) Object.assign(x, { holder: node.id, holder_name: node.name, purpose: 'guest' });
    }
  }

  #record(user, verb, object, result = 'ok') {
    const id = [...this.vms, ...this.volumes].find((x) => x.name === object)?.id ?? idOf(object);
    this.audit.unshift({
      index: this.audit.length + 1,
      time: new Date().toISOString(),
      actor: { user, role: user === 'system' ? 'owner' : 'admin', address: '127.0.0.1' },
      verb,
      object: `${verb.split('.')[0]} ${id} ${object}`,
      result,
      hash: idOf(verb),
    });
  }

  #find(list, ref, what) {
    const found = list.find((x) => x.id === ref || x.name === ref);
    if (!found) throw new Refusal(404, 'not_found', `there is no ${what} "${ref}"`);
    return found;
  }

  findNode = (ref) => this.#find(this.nodes, ref, 'node');
  findVolume = (ref) => this.#find(this.volumes, ref, 'volume');
  findNetwork = (ref) => this.#find(this.networks, ref, 'network');
  findVM = (ref) => this.#find(this.vms, ref, 'vm');

  #checkName(what, name, list) {
    if (!/^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$/.test(name ?? '')) {
      throw new Refusal(400, 'invalid', `the name "${name}" of a ${what} is not allowed`);
    }
    if (list.some((x) => x.name === name)) {
      throw new Refusal(409, 'conflict', `there is a ${what} "${name}" already`);
    }
  }

  changed(...objects) {
    this.onChange(objects);
  }

  createVolume(user, { name, size_bytes, copies = 2 }) {
    this.#checkName('volume', name, this.volumes);
    if (!(size_bytes >= 2 ** 20)) {
      throw new Refusal(400, 'invalid', `a volume of ${size_bytes} bytes is too small`);
    }
    if (size_bytes * copies > this.pool().size_bytes - this.pool().used_bytes) {
      throw new Refusal(507, 'no_space', 'the pool has no room for this volume');
    }
    const v = this.#volume(name, size_bytes, 'disk', copies);
    v.used_bytes = 0;
    this.volumes.push(v);
    this.#record(user, 'volume.create', name);
    this.changed('volumes', 'audit');
    return v;
  }

  resizeVolume(user, ref, size) {
    const v = this.findVolume(ref);
    if (size < v.size_bytes) throw new Refusal(400, 'invalid', `"${v.name}" can only grow`);
    v.size_bytes = size;
    this.#record(user, 'volume.resize', v.name);
    this.changed('volumes', 'vms', 'audit');
    return v;
  }

  deleteVolume(user, ref) {
    const v = this.findVolume(ref);
    if (v.attached_to) throw new Refusal(409, 'conflict', `volume "${v.name}" belongs to a vm`);
    this.volumes = this.volumes.filter((x) => x !== v);
    this.#record(user, 'volume.delete', v.name);
    this.changed('volumes', 'audit');
  }

  importImage(user, name, bytes) {
    const v = this.#volume(name, Math.max(bytes, GiB), 'image', 2);
    this.volumes.push(v);
    this.#record(user, 'image.import', name);
    this.changed('volumes', 'tasks', 'audit');
    return v;
  }

  createVM(user, spec) {
    this.#checkName('vm', spec.name, this.vms);
    const disks = (spec.disks ?? []).map((d, i) => {
      if (d.volume) return this.findVolume(d.volume);
      const size = d.image ? this.findVolume(d.image).size_bytes : d.size_bytes;
      return this.#volume(`${spec.name}-${i}`, size, 'disk', 2);
    });
    const vm = this.#makeVM(spec.name, spec.cpus, spec.memory_bytes, disks, spec.boot);
    Object.assign(vm, { tags: spec.tags ?? [], description: spec.description ?? '' });
    this.#firmware(vm, spec.firmware ?? 'bios');
    vm.nics = (spec.nics ?? []).map((n) => this.#nic(n));
    this.#record(user, 'vm.create', spec.name);
    this.changed('vms', 'volumes', 'audit');
    return this.vm(vm);
  }

  changeVM(user, ref, change) {
    const vm = this.findVM(ref);
    const { add_nics = [], set_nics = [], remove_nics = [], firmware, ...rest } = change;
    const { add_disks = [], remove_disks = [], ...plain } = rest;
    Object.assign(vm, plain);
    if (firmware) this.#firmware(vm, firmware);
    vm.nics = vm.nics.filter((n) => !remove_nics.includes(n.mac));
    for (const c of set_nics) {
      const n = vm.nics.find((x) => x.mac === c.mac);
      if (!n) throw new Refusal(404, 'not_found', `the vm has no network card ${c.mac}`);
      const network = c.network && this.findNetwork(c.network);
      Object.assign(n, c, network ? { network: network.id, network_name: network.name } : {});
    }
    const gone = remove_disks.map((d) => this.findVolume(d).id);
    vm.disks = vm.disks.filter((d) => !gone.includes(d));
    for (const d of add_disks) {
      const name = `${vm.name}-${vm.disks.length}`;
      const v = d.volume ? this.findVolume(d.volume) : this.#volume(name, d.size_bytes, 'disk', 2);
      vm.disks.push(v.id);
    }
    vm.nics.push(...add_nics.map((n) => this.#nic(n)));
    this.#record(user, 'vm.update', vm.name);
    this.changed('vms', 'audit');
    return this.vm(vm);
  }

  #nic({ network, model = 'virtio', mac, disconnected = false }) {
    const n = this.findNetwork(network);
    const drawn = idOf(String(Math.random())).slice(0, 2);
    const made = `02:00:00:00:${drawn.charCodeAt(0).toString(16)}:${drawn.charCodeAt(1).toString(16)}`;
    return {
      mac: mac ?? made,
      model,
      network: n.id,
      network_name: n.name,
      connected: !disconnected,
    };
  }

  network(n) {
    const cards = this.vms.flatMap((v) => v.nics).filter((c) => c.network === n.id).length;
    return { ...n, cards };
  }

  #bridges(nodes = []) {
    return nodes.map((b) => {
      const node = this.findNode(b.node);
      return { node: node.id, node_name: node.name, bridge: b.bridge };
    });
  }

  createNetwork(user, { name, kind = 'bridge', bridge = '', nodes, vlan = 0 }) {
    this.#checkName('network', name, this.networks);
    const created = new Date().toISOString();
    const n = { id: idOf(name), name, kind, bridge, nodes: this.#bridges(nodes), vlan, created };
    this.networks.push(n);
    this.#record(user, 'network.create', name);
    this.changed('networks', 'audit');
    return this.network(n);
  }

  changeNetwork(user, ref, { nodes, ...change }) {
    const n = this.findNetwork(ref);
    Object.assign(n, change, nodes ? { nodes: this.#bridges(nodes) } : {});
    this.#record(user, 'network.update', n.name);
    this.changed('networks', 'audit');
    return this.network(n);
  }

  deleteNetwork(user, ref) {
    const n = this.findNetwork(ref);
    if (this.network(n).cards > 0) throw new Refusal(409, 'conflict', 'a network card is on it');
    this.networks = this.networks.filter((x) => x !== n);
    this.#record(user, 'network.delete', n.name);
    this.changed('networks', 'audit');
  }

  power(user, ref, action, nodeRef) {
    const vm = this.findVM(ref);
    const set = (state, after) => {
      vm.status = { ...vm.status, state, since: new Date().toISOString() };
      this.changed('vms');
      if (after) setTimeout(after, 1200).unref();
    };
    if (action === 'start') {
      const node = nodeRef ? this.findNode(nodeRef) : this.nodes[this.vms.length % 3];
      Object.assign(vm, { power: 'on', node: node.id, node_name: node.name });
      set('starting', () => {
        this.#run(vm, node);
        this.changed('vms', 'volumes');
      });
    } else if (action === 'stop' || action === 'shutdown') {
      vm.power = 'off';
      set('stopping', () => {
        vm.node = vm.node_name = '';
        set('stopped');
      });
    }
    this.#record(user, `vm.${action}`, vm.name);
    this.changed('audit');
    return this.vm(vm);
  }

  deleteVM(user, ref, keep) {
    const vm = this.findVM(ref);
    if (vm.status.state !== 'stopped') {
      throw new Refusal(409, 'conflict', `vm "${vm.name}" is ${vm.status.state}; stop it first`);
    }
    this.vms = this.vms.filter((x) => x !== vm);
    for (const d of [...vm.disks, ...(vm.nvram ? [vm.nvram] : [])]) {
      const v = this.volumes.find((x) => x.id === d);
      if (v) delete v.attached_to;
      if (!keep) this.volumes = this.volumes.filter((x) => x.id !== d);
    }
    this.#record(user, 'vm.delete', vm.name);
    this.changed('vms', 'volumes', 'audit');
  }

  addDisk(user, ref, { path, size_bytes }) {
    const node = this.findNode(ref);
    if (!path?.startsWith('/')) throw new Refusal(400, 'invalid', `"${path}" is not absolute`);
    const disk = {
      id: idOf(`${node.id}${path}`),
      node: node.id,
      node_name: node.name,
      path,
      state: 'online',
      size_bytes: size_bytes ?? 512 * GiB,
      used_bytes: 0,
      checksum_errors: 0,
      repaired: 0,
    };
    this.disks.push(disk);
    this.#record(user, 'disk.add', path);
    this.changed('disks', 'audit');
    return disk;
  }

  removeNode(user, ref) {
    const node = this.findNode(ref);
    if (node.up) throw new Refusal(409, 'conflict', `node "${node.name}" is up; stop it first`);
    this.nodes = this.nodes.filter((x) => x !== node);
    this.#record(user, 'node.remove', node.name);
    this.changed('nodes', 'disks', 'audit');
  }

  /** Moves one machine a second off a node that is drained, and at once back. */
  drainNode(user, ref, on) {
    const node = this.findNode(ref);
    this.#record(user, 'node.drain', node.name);
    const here = () => this.vms.filter((v) => v.node === node.id && v.power === 'on');
    const to = this.nodes.find((n) => n !== node && n.up && !n.maintenance);
    const move = (vm, n) => Object.assign(vm, { node: n.id, node_name: n.name });
    if (!on) {
      delete node.maintenance;
      for (const vm of this.vms.filter((v) => v.returns_to === node.name)) {
        move(vm, node);
        delete vm.returns_to;
      }
    } else if (!node.maintenance) {
      node.maintenance = { since: new Date().toISOString(), vms_left: here().length, vms_moved: 0 };
      const step = () => {
        const vm = here()[0];
        if (!vm || !to || !node.maintenance) return;
        move(vm, to).returns_to = node.name;
        node.maintenance.vms_left = here().length;
        node.maintenance.vms_moved++;
        this.changed('vms', 'nodes');
        setTimeout(step, 1000).unref();
      };
      setTimeout(step, 1000).unref();
    }
    this.changed('vms', 'nodes', 'audit');
    return node;
  }

  createToken(user, { uses = 1, ttl_seconds = 3600 }) {
    const id = idOf(`token-${this.tokens.length}-${Date.now()}`).slice(0, 8);
    const expires = new Date(Date.now() + ttl_seconds * 1000).toISOString();
    this.tokens.push({ id, uses, expires, created: new Date().toISOString() });
    this.#record(user, 'token.create', id);
    this.changed('audit');
    const secret = idOf(`secret-${id}`) + idOf(`more-${id}`);
    return { id, token: `dry1-${idOf(this.id)}-${id}-${secret}-7kq2`, expires, uses };
  }

  /** A vm as the API shows it: its disks named and measured. */
  vm(x) {
    const shown = (d, i) => {
      const v = this.volumes.find((y) => y.id === d);
      if (!v) return [];
      const { id, name, size_bytes, used_bytes, state } = v;
      return [
        { volume: id, device: `disk${i + 1}`, name, bus: 'virtio', size_bytes, used_bytes, state },
      ];
    };
    const nvram = x.nvram ? { nvram: shown(x.nvram, 0)[0] } : {};
    return { ...x, disks: x.disks.flatMap(shown), ...nvram };
  }

  pool() {
    const sum = (key) => this.disks.reduce((a, d) => a + d[key], 0);
    const size = sum('size_bytes');
    return {
      size_bytes: size,
      used_bytes: sum('used_bytes'),
      reserve_bytes: Math.round(size / Math.max(1, this.nodes.length)),
      provisioned_bytes: this.volumes.reduce((a, v) => a + v.size_bytes * v.copies, 0),
      disks_online: this.disks.filter((d) => d.state === 'online').length,
      disks_total: this.disks.length,
      columns_out_of_sync: this.volumes.reduce((a, v) => a + v.columns_out_of_sync, 0),
    };
  }

  cluster() {
    const { size_bytes, used_bytes, reserve_bytes, columns_out_of_sync } = this.pool();
    return {
      id: this.id,
      name: this.name,
      version: '0.1.0',
      leader: this.nodes[0]?.id ?? '',
      quorum: this.fault !== 'quorum',
      nodes_total: this.nodes.length,
      nodes_up: this.nodes.filter((n) => n.up).length,
      nodes_maintenance: this.nodes.filter((n) => n.maintenance).length,
      nodes_resting: this.nodes.filter((n) => n.maintenance && !n.up).length,
      vms_total: this.vms.length,
      vms_running: this.vms.filter((v) => v.status.state === 'running').length,
      spare: {
        memory_bytes: 90 * GiB,
        memory_promised_bytes: 30 * GiB,
        cpus: 48,
        cpus_promised: 20,
        loss_of: this.nodes[0].id,
        loss_vms: 0,
        loss_memory_bytes: 0,
      },
      volumes_total: this.volumes.length,
      volumes_unavailable: 0,
      columns_total: this.volumes.reduce((a, v) => a + v.columns_total, 0),
      columns_out_of_sync,
      pool: { size_bytes, used_bytes, reserve_bytes },
      accel: 'tcg',
      hypervisor: true,
    };
  }

  nodeList() {
    return this.nodes.map((n) => ({
      ...n,
      vms_running: this.vms.filter((v) => v.node === n.id && v.status.state === 'running').length,
    }));
  }

  /** One second of every topic, kept for /metrics/history. */
  sample(t = Date.now()) {
    const wave = (i, period, low, high) => {
      const noise = Math.sin(t / 1370 + i * 5.1) * Math.sin(t / 710 + i) * 0.25;
      const x = 0.5 + 0.4 * Math.sin((2 * Math.PI * t) / (period * 1000) + i * 1.7) + noise;
      return low + (high - low) * Math.min(1, Math.max(0, x));
    };
    const io = (list, of) => ({
      r_iops: list.map((x, i) => of(x) * wave(i, 47, 100, 2400)),
      w_iops: list.map((x, i) => of(x) * wave(i + 3, 31, 60, 1500)),
      r_bps: list.map((x, i) => of(x) * wave(i, 47, 1e6, 90e6)),
      w_bps: list.map((x, i) => of(x) * wave(i + 3, 31, 1e6, 60e6)),
      r_lat: list.map((x, i) => of(x) * wave(i, 23, 0.0002, 0.0014)),
      w_lat: list.map((x, i) => of(x) * wave(i, 29, 0.0004, 0.0031)),
    });
    const up = (n) => (n.up ? 1 : 0);
    const runs = (v) => (v.status.state === 'running' ? 1 : 0);
    const nodes = {
      cpu: this.nodes.map((n, i) => up(n) * wave(i, 61, 0.08, 0.7)),
      mem_used: this.nodes.map((n, i) => up(n) * wave(i, 301, 8, 18) * GiB),
      mem_total: this.nodes.map((n) => n.memory_bytes),
      net_rx: this.nodes.map((n, i) => up(n) * wave(i, 41, 1e6, 80e6)),
      net_tx: this.nodes.map((n, i) => up(n) * wave(i + 1, 43, 1e6, 80e6)),
      ...io(this.nodes, up),
    };
    const disks = {
      used: this.disks.map((d) => d.used_bytes),
      size: this.disks.map((d) => d.size_bytes),
      ...io(this.disks, (d) => (d.state === 'online' ? 0.5 : 0)),
    };
    const vms = {
      cpu: this.vms.map((v, i) => runs(v) * wave(i, 37, 0.03, 0.9)),
      mem_used: this.vms.map((v, i) => runs(v) * wave(i, 211, 0.3, 0.8) * v.memory_bytes),
      ...io(this.vms, (v) => runs(v) * 0.4),
    };
    const total = (key) => [nodes[key].reduce((a, b) => a + b, 0)];
    const cluster = Object.fromEntries(Object.keys(nodes).map((k) => [k, total(k)]));
    for (const k of ['cpu', 'r_lat', 'w_lat']) cluster[k][0] /= Math.max(1, this.nodes.length);
    const ids = (list) => list.map((x) => x.id);
    const second = {
      t,
      nodes: { ids: ids(this.nodes), v: nodes, age: this.nodes.map((n) => (n.up ? 0.4 : 95)) },
      disks: { ids: ids(this.disks), v: disks, age: this.disks.map(() => 0.4) },
      vms: { ids: ids(this.vms), v: vms, age: this.vms.map(() => 0.4) },
      cluster: { ids: [this.id], v: cluster, age: [0.4] },
    };
    this.history.push(second);
    if (this.history.length > 600) this.history.shift();
    return second;
  }

  /** What a machine did; it was off in the third quarter of the time. */
  past(ref, seconds) {
    const vm = this.vms.find((v) => v.id === ref || v.name === ref);
    const step = Math.ceil(seconds / 720);
    const now = Math.floor(Date.now() / 1000 / step) * step;
    const n = 720;
    const t = Array.from({ length: n }, (_, i) => (now - (n - 1 - i) * step) * 1000);
    const wave = (high, period) =>
      t.map((_, i) =>
        i > n / 2 && i < 0.75 * n ? null : high * (0.5 + 0.4 * Math.sin(i / period)),
      );
    const series = {
      cpu: wave(0.8, 31),
      mem_used: wave(vm.memory_bytes, 90),
      r_iops: wave(900, 17),
      w_iops: wave(500, 23),
      r_bps: wave(60e6, 17),
      w_bps: wave(40e6, 23),
      r_lat: wave(0.001, 29),
      w_lat: wave(0.002, 37),
    };
    return { id: vm.id, step_seconds: step, t, series, missing: [] };
  }

  metrics(topic, seconds) {
    const rows = this.history.slice(-seconds);
    const last = rows.at(-1)?.[topic] ?? { ids: [], v: {} };
    const series = {};
    for (const key of Object.keys(last.v)) {
      series[key] = rows.map((r) =>
        last.ids.map((id) => r[topic].v[key]?.[r[topic].ids.indexOf(id)] ?? null),
      );
    }
    return { topic, ids: last.ids, t: rows.map((r) => r.t), series };
  }
}
