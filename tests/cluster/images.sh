#!/usr/bin/env bash
# Build images/* (and MinIO's image, from its binary) and bring them into the cluster; print their names.
#
#   tests/cluster/images.sh [--no-import] [--no-archive] [operator] [cpu] [minio] [synthesis] [training] [evaluation]
#
# Without names: operator, cpu and minio; the others are for GPUs and large. --no-archive, which implies --no-import, leaves
# an image where docker or buildah keeps images and spares its second copy.
# With docker where it works, from the base image of the Containerfile; else with buildah (root), from BASE where it is set
# and otherwise from a Debian made here by debootstrap. An image is named viper.local/<image>:<hash of all that goes into
# it>, so one that is there is not built again. Beside the archives in ${VIPER_CACHE:-$HOME/.cache/viper}/images lies the list
# of components of each image (CycloneDX). A cluster that KUBECONFIG names gets no images from here: push the archives to
# a registry that it can read.
#
# Package indexes: UV_DEFAULT_INDEX, UV_INDEX_URL, PIP_INDEX_URL or pip's configuration, and SSL_CERT_FILE, are passed on
# to the build as secrets; they do not end up in an image.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(cd "$here/../.." && pwd)
. "$here/settings.sh"
CACHE=${VIPER_CACHE:-$HOME/.cache/viper}/images
DEBIAN=bookworm
export SOURCE_DATE_EPOCH=0 BUILDAH_ISOLATION=chroot STORAGE_DRIVER=${STORAGE_DRIVER:-overlay}

import=1 archives=1 wanted=()
for word; do
  case $word in
    --no-import) import= ;;
    --no-archive) import= archives= ;;
    *)
      [ "$word" = minio ] || [ -f "$root/images/$word/Containerfile" ] ||
        die "$word is no image" "minio, or one of: $(cd "$root/images" && echo */ | tr -d /)"
      wanted+=("$word")
      ;;
  esac
done
[ ${#wanted[@]} -gt 0 ] || wanted=(operator cpu minio)
mkdir -p "$CACHE"
exec 9>"$CACHE/.lock"
! command -v flock >/dev/null || flock 9
secrets=$(mktemp -d)
trap 'rm -rf "$secrets"' EXIT

if docker info >/dev/null 2>&1; then engine=docker; else engine=buildah; fi
[ $engine = docker ] || command -v buildah >/dev/null || die "neither docker nor buildah is here" "Debian, Ubuntu: apt-get install buildah"

mirror() { # where this machine gets Debian packages from; nothing where it is no Debian of that release
  apt-get indextargets --format '$(RELEASE) $(COMPONENT) $(REPO_URI)' 'Created-By: Packages' 2>/dev/null |
    awk -v release=$DEBIAN '$1 == release && $2 == "main" {print $3; exit}'
}

base() { # prints the base image, made where it is missing
  [ -z "${BASE:-}" ] || { echo "$BASE"; return; }
  [ $engine = buildah ] || return 0 # the Containerfile's own
  local name=localhost/viper-base:$DEBIAN tree container
  if ! buildah inspect --type image $name >/dev/null 2>&1; then
    command -v debootstrap >/dev/null || die "debootstrap is not here" "set BASE to an image with Python 3.11 or 3.12, or: apt-get install debootstrap"
    say "making a base image by debootstrap"
    tree=$(mktemp -d "$CACHE/.base.XXXXXX")
    debootstrap --variant=minbase --include=python3,python3-venv $DEBIAN "$tree" $(mirror) >"$CACHE/debootstrap.log" 2>&1 9>&- ||
      { tail "$CACHE/debootstrap.log" >&2; die "debootstrap failed"; }
    rm -rf "$tree"/var/cache/apt/* "$tree"/var/lib/apt/lists/* "$tree"/var/log/* "$tree"/usr/share/{doc,man,locale,info}/* \
      "$tree"/etc/apt/sources.list "$tree"/dev/* "$tree"/var/cache/debconf/*-old
    container=$(buildah from scratch)
    buildah add --quiet "$container" "$tree" / >/dev/null
    buildah config --cmd python3 "$container"
    buildah commit --quiet --rm --timestamp 0 "$container" $name >/dev/null
    rm -rf "$tree"
  fi
  echo $name
}

indexes() { # what the builds need to reach the package index
  local index debian
  index=${UV_DEFAULT_INDEX:-${UV_INDEX_URL:-${PIP_INDEX_URL:-$(python3 -m pip config get global.index-url 2>/dev/null || true)}}}
  [ -z "$index" ] || printf '[[index]]\nurl = "%s"\ndefault = true\n' "$index" >"$secrets/uv.toml"
  [ -z "$index" ] || printf '[global]\nindex-url = %s\n' "$index" >"$secrets/pip.conf"
  [ ! -f "${SSL_CERT_FILE:-}" ] || cp "$SSL_CERT_FILE" "$secrets/ca.crt"
  # Only the base image that is made here has no package sources of its own.
  debian=$(mirror)
  [ $engine = docker ] || [ -n "${BASE:-}" ] || [ -z "$debian" ] || echo "deb $debian $DEBIAN main" >"$secrets/sources.list"
  for file in "$secrets"/*; do [ ! -f "$file" ] || echo "--secret=id=$(basename "$file"),src=$file"; done
}

contents() { # contents IMAGE: the files that decide what is in it
  cd "$root"
  local paths=("images/$1" images/tools.sh images/install.sh images/code.sh images/uv.lock images/build.lock pyproject.toml README.md viper jobs operator)
  grep -q compiler.sh "images/$1/Containerfile" && paths+=(images/compiler.sh images/layer.sh)
  git ls-files -z --cached --others --exclude-standard -- "${paths[@]}" | sort -zu | xargs -0 -r sha256sum --
}

build() { # build IMAGE NAME ARCHIVE
  local image=$1 name=$2 archive=$3 options=() base container
  base=$(base)
  mapfile -t options < <(indexes)
  [ -z "$base" ] || options+=(--build-arg "BASE=$base")
  cd "$root"
  if [ $engine = docker ]; then
    docker build --build-arg SOURCE_DATE_EPOCH=0 "${options[@]}" -f "images/$image/Containerfile" -t "$name" . >&2
    [ -z "$archives" ] || docker save "$name" >"$archive.new"
    docker run --rm --entrypoint cat "$name" /opt/viper/share/sbom.cdx.json >"${archive%.tar}.cdx.json"
  else
    # uv has most packages unpacked in its cache, if it set up the development environment here.
    if command -v uv >/dev/null && mkdir -p "$(uv cache dir)"; then options+=(--volume "$(uv cache dir):/root/.cache/uv"); fi
    options+=(--layers --timestamp 0 --quiet --file "images/$image/Containerfile")
    # Stage by stage: a build keeps the containers of all its steps, each as large as its layer, until it ends.
    for stage in $(sed -n 's/^FROM .* AS //p' "images/$image/Containerfile"); do
      buildah bud "${options[@]}" --target "$stage" . >/dev/null 9>&-
    done
    buildah bud "${options[@]}" -t "$name" . >&2 9>&-
    rm -f "$archive.new"
    # Layers as they are, not compressed.
    [ -z "$archives" ] || buildah push --quiet "$name" "docker-archive:$archive.new:$name" >&2
    container=$(buildah from "$name")
    cp "$(buildah mount "$container")/opt/viper/share/sbom.cdx.json" "${archive%.tar}.cdx.json"
    buildah rm "$container" >/dev/null
  fi
  [ -z "$archives" ] || mv "$archive.new" "$archive"
}

built() { # built NAME ARCHIVE: is there nothing left to do?
  [ -f "$2" ] || { [ -z "$archives" ] && $engine inspect --type image "$1" >/dev/null 2>&1; }
}

size() { # size NAME ARCHIVE
  if [ -f "$2" ]; then echo "$(du -m "$2" | cut -f1) MB"; else "$engine" images --format '{{.Size}}' "$1" | head -n 1; fi
}

for image in "${wanted[@]}"; do
  started=$SECONDS
  if [ "$image" = minio ]; then
    binary=$("$here/../servers/build_minio.sh")
    hash=$(basename "$(dirname "$binary")" | sha256sum | cut -c1-12)
  else
    hash=$( (contents "$image"; echo "$engine ${BASE:-}") | sha256sum | cut -c1-12)
  fi
  name=viper.local/$image:$hash archive=$CACHE/$image-$hash.tar
  if ! built "$name" "$archive"; then
    say "building $name"
    if [ "$image" = minio ]; then python3 "$here/oci.py" "$name" "$binary" "$archive.new" && mv "$archive.new" "$archive"; else build "$image" "$name" "$archive"; fi
    find "$CACHE" -maxdepth 1 -name "$image-*" ! -name "$image-$hash.*" -delete # only the newest is kept
    say "  $(size "$name" "$archive") in $((SECONDS - started)) s"
  fi
  [ $engine = docker ] || for old in $(buildah images --format '{{.Name}}:{{.Tag}}' 2>/dev/null | grep "^viper.local/$image:" | grep -v ":$hash$"); do
    buildah rmi "$old" >/dev/null 2>&1 || true # its layers stay for the next build, if that begins with them
  done
  if [ "$import" ]; then
    case $(mode) in
      bare)
        alive containerd || die "there is no cluster to bring $name into" "make cluster, or --no-import"
        containers() { "$("$here/build.sh" ctr)/ctr" --address "$RUN/containerd.sock" --namespace k8s.io "$@" 2>>"$STATE/logs/ctr.log"; }
        containers images list -q | grep -qxF "$name" || containers images import "$archive" >&2
        ;;
      kind) kind load image-archive --name viper "$archive" >&2 ;;
      given) say "$archive: push it to a registry that the cluster of KUBECONFIG can read" ;;
    esac
  fi
  echo "$name"
done
