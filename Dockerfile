# weber with all it needs and an ssh server, for machines that are rented (docs/remote.md). Not built by the makers yet.
#   docker build -t weber .
#   docker run --gpus all -p 2222:22 -e AUTHORIZED_KEY="$(cat ~/.ssh/id_ed25519.pub)" weber
#   weber remote train run.toml root@localhost -p 2222 --python /opt/weber/bin/python
FROM python:3.11-slim-bookworm

RUN apt-get update \
    && apt-get install -y --no-install-recommends openssh-server rsync \
    && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
    && mkdir -p /run/sshd

COPY pyproject.toml constraints.txt README.md LICENSE /src/
COPY weber /src/weber
COPY examples /src/examples
RUN python -m venv /opt/weber \
    && /opt/weber/bin/pip install --no-cache-dir -c /src/constraints.txt "/src[hub,kernels,optimizers,tensorboard]" \
    && rm -rf /src

# Host keys are made when it starts, so that no two machines have the same one; the log shows their fingerprints.
CMD ["sh", "-c", "mkdir -p /root/.ssh && chmod 700 /root/.ssh && printf '%s\\n' \"$AUTHORIZED_KEY\" > /root/.ssh/authorized_keys && chmod 600 /root/.ssh/authorized_keys && ssh-keygen -A && for one in /etc/ssh/ssh_host_*.pub; do ssh-keygen -lf \"$one\"; done && exec /usr/sbin/sshd -D -e -o PasswordAuthentication=no"]
