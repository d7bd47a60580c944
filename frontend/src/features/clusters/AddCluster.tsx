import { Alert, Button, ColorSwatch, Group, Modal, PasswordInput, TextInput } from '@mantine/core';
import { IconShieldCheck, IconShieldQuestion } from '@tabler/icons-react';
import { useQueryClient } from '@tanstack/react-query';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useWorld } from '../../api/context';
import { deskCall } from '../../api/desk';
import type { DeskCluster, Probe } from '../../api/desk';
import { CopyCommand } from '../../parts/CopyCommand';
import { Problem } from '../../parts/Problem';
import { said } from '../../parts/useRun';
import classes from './clusters.module.css';
import { colors } from './colors';

/**
 * Adds a cluster in two steps: find out who answers and whether that is the right
 * one, then log in. A join string already says who must answer.
 */
export function AddCluster({ onClose }: { onClose: () => void }) {
  const { t } = useTranslation();
  const { platform } = useWorld();
  const [address, setAddress] = useState('');
  const [probe, setProbe] = useState<Probe>();
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);

  const ask = async () => {
    setBusy(true);
    setError(undefined);
    try {
      const body = { address: address.trim() };
      setProbe(await deskCall<Probe>(platform, '/probe', { method: 'POST', body }));
    } catch (err) {
      setError(err);
    } finally {
      setBusy(false);
    }
  };

  return (
    <Modal
      opened
      onClose={onClose}
      title={t('cluster.add.title')}
      size="lg"
      centered
      closeButtonProps={{ 'aria-label': t('action.close') }}
    >
      {probe ? (
        <Trust probe={probe} onBack={() => setProbe(undefined)} onClose={onClose} />
      ) : (
        <form
          className={classes.form}
          onSubmit={(e) => {
            e.preventDefault();
            void ask();
          }}
        >
          <TextInput
            label={t('cluster.add.address')}
            description={t('cluster.add.addressText')}
            placeholder="192.168.1.11:8443"
            name="address"
            value={address}
            onChange={(e) => setAddress(e.currentTarget.value)}
            spellCheck={false}
            autoComplete="off"
            data-autofocus
          />
          <p className={classes.text}>{t('cluster.add.joinText')}</p>
          {error !== undefined && <Problem error={error} />}
          <Group justify="flex-end" gap="xs">
            <Button variant="default" onClick={onClose}>
              {t('action.cancel')}
            </Button>
            <Button type="submit" loading={busy} disabled={address.trim() === ''}>
              {t('action.next')}
            </Button>
          </Group>
        </form>
      )}
    </Modal>
  );
}

interface TrustProps {
  probe: Probe;
  onBack: () => void;
  onClose: () => void;
}

function Trust({ probe, onBack, onClose }: TrustProps) {
  const { t } = useTranslation();
  const { platform, connections } = useWorld();
  const queries = useQueryClient();
  const [user, setUser] = useState('admin');
  const [password, setPassword] = useState('');
  const [color, setColor] = useState<string>(colors[0].value);
  const [error, setError] = useState<unknown>();
  const [busy, setBusy] = useState(false);

  const add = async () => {
    setBusy(true);
    setError(undefined);
    try {
      const { address, ca_spki } = probe;
      const body = { address, ca_spki, user, password, color };
      const c = await deskCall<DeskCluster>(platform, '/clusters', { method: 'POST', body });
      connections.get(c.id).bus.close();
      await queries.invalidateQueries();
      said(t('cluster.add.done', { name: c.name }));
      onClose();
    } catch (err) {
      setError(err);
    } finally {
      setBusy(false);
    }
  };

  return (
    <form
      className={classes.form}
      onSubmit={(e) => {
        e.preventDefault();
        void add();
      }}
    >
      <Identity probe={probe} />
      <div className={classes.pair}>
        <TextInput
          label={t('login.user')}
          name="user"
          value={user}
          onChange={(e) => setUser(e.currentTarget.value)}
          autoComplete="username"
        />
        <PasswordInput
          label={t('login.password')}
          name="password"
          value={password}
          onChange={(e) => setPassword(e.currentTarget.value)}
          autoComplete="current-password"
          data-autofocus
        />
      </div>
      <div className={classes.swatches} role="radiogroup" aria-label={t('cluster.color')}>
        {colors.map((c) => (
          <ColorSwatch
            key={c.value}
            component="button"
            type="button"
            role="radio"
            aria-checked={c.value === color}
            aria-label={t(`color.${c.name}`)}
            color={c.value}
            size={22}
            className={c.value === color ? classes.chosen : ''}
            onClick={() => setColor(c.value)}
          />
        ))}
      </div>
      {error !== undefined && <Problem error={error} />}
      <Group justify="flex-end" gap="xs">
        <Button variant="default" onClick={onBack}>
          {t('action.back')}
        </Button>
        <Button type="submit" loading={busy} disabled={user === '' || password === ''}>
          {probe.vouched ? t('cluster.add.confirm') : t('cluster.add.trust')}
        </Button>
      </Group>
    </form>
  );
}

function Identity({ probe }: { probe: Probe }) {
  const { t } = useTranslation();
  const text = t('cluster.add.found', { name: probe.cluster_name, address: probe.address });
  if (probe.vouched) {
    return (
      <Alert color="teal" variant="light" icon={<IconShieldCheck size={18} />} title={text}>
        {t('cluster.add.vouched')}
      </Alert>
    );
  }
  return (
    <Alert color="orange" variant="light" icon={<IconShieldQuestion size={18} />} title={text}>
      <p className={classes.text}>{t('cluster.add.compare')}</p>
      <p className={classes.print}>{probe.ca_spki.match(/.{1,4}/g)?.join(' ')}</p>
      <CopyCommand command="drystone cert show" />
    </Alert>
  );
}
