import { Button, Group, Modal, NumberInput } from '@mantine/core';
import { useState } from 'react';
import { useTranslation } from 'react-i18next';
import { useConnection } from '../../api/context';
import type { NewToken, Node } from '../../api/types';
import { useFormat } from '../../i18n/format';
import { ActionDialog } from '../../parts/ActionDialog';
import { command } from '../../parts/command';
import { CopyCommand } from '../../parts/CopyCommand';
import classes from './overview.module.css';

const HOUR = 3600;

/** Makes a join token, and shows once what to type on the new machine. */
export function AddNode({ onClose, nodes }: { onClose: () => void; nodes: Node[] }) {
  const { t } = useTranslation();
  const format = useFormat();
  const connection = useConnection();
  const [uses, setUses] = useState(1);
  const [token, setToken] = useState<NewToken>();
  if (token) {
    const address = (nodes.find((n) => n.leader) ?? nodes[0])?.address ?? 'ADDRESS';
    return (
      <Modal
        opened
        onClose={onClose}
        title={t('node.add.title')}
        size="lg"
        centered
        closeButtonProps={{ 'aria-label': t('action.close') }}
      >
        <div className={classes.dialog}>
          <p>{t('node.add.run')}</p>
          <CopyCommand command={command('join', address, token.token)} />
          <p className={classes.dim}>
            {t('node.add.once', { time: format.dateTime(token.expires), count: token.uses })}
          </p>
          <Group justify="flex-end">
            <Button onClick={onClose}>{t('action.close')}</Button>
          </Group>
        </div>
      </Modal>
    );
  }
  return (
    <ActionDialog
      title={t('node.add.title')}
      onClose={onClose}
      stays
      confirm={t('node.add.make')}
      command={command('token', 'create', uses > 1 && '--uses', uses > 1 && String(uses))}
      onConfirm={async () => {
        const body = { uses, ttl_seconds: HOUR };
        setToken(await connection.call<NewToken>('/tokens', { method: 'POST', body }));
      }}
    >
      <p className={classes.dim}>{t('node.add.text')}</p>
      <NumberInput
        label={t('node.add.uses')}
        value={uses}
        onChange={(n) => setUses(Number(n) || 1)}
        min={1}
        max={100}
        allowDecimal={false}
        data-autofocus
      />
    </ActionDialog>
  );
}
