"""The VQ-VAE under the OU bridges: images to a map of codes and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from einops import reduce
from torch import Tensor, nn
from torch.nn import functional

from fastdiff.nn.codebook import Quantised, make_codebook
from fastdiff.systems.vqvae.layers import decoder, encoder

#: Widths of the encoder before the codes, its strides, widths of the decoder after the codes, its strides, and the
#: size of image that the network was made for.
_SHAPES: dict[str, tuple[list[int], list[int], list[int], list[int], int]] = {
    "cifar": ([16, 32], [2, 1, 1], [32, 16], [1, 1, 2], 32),
    "mini_imagenet": ([16, 32, 32], [2, 2, 1, 1], [32, 32, 16], [1, 1, 2, 2], 88),
}


class Reconstruction(NamedTuple):
    """What a VQ-VAE makes of a batch, and what its training looks at.

    Attributes:
        images: (B, C, H, W) the decoded codes.
        quantised: (B, D, h, w) the codes; a list, coarsest first, for a hierarchical VQ-VAE.
        indices: (B, h, w) int64, or (B, h, w, S) for codebooks made of S; a list likewise.
        loss_latent: scalar, what the codebook adds to the loss.
        perplexity: in [1, K]: how many codes this batch used, equally frequent ones counting full; (levels,)
            coarsest first, or (S,).
        usage: share of the codes used, of the same shape.
    """

    images: Tensor
    quantised: Any
    indices: Any
    loss_latent: Tensor
    perplexity: Tensor
    usage: Tensor


class VQVAE(nn.Module):
    """Encoder, codebook, decoder.

    `encode` and `decode` are modules: `vqvae.decode(vqvae.quantise(vqvae.encode(x)).quantised)` is the
    reconstruction. Names of parameters are those of the original's checkpoints.

    Args:
        num_codebook: K, number of codes.
        dim_codebook: D, width of a code.
        shape: "cifar" halves height and width once (16 x 16 codes for 32 x 32), "mini_imagenet" twice (22 x 22 codes
            for 88 x 88).
        channels: channels of the images.
        codebook_flavor: one of `fastdiff.nn.codebook.FLAVORS`, or "fsq".
        codebook_options: further arguments of the codebook.

    Raises:
        ValueError: for an unknown shape or flavor, or sizes below 1.

    Source: Cohen et al. 2022 (diffusion bridges vector quantized variational autoencoders), section 5.
    """

    encode: nn.Sequential
    decode: nn.Sequential

    def __init__(
        self,
        num_codebook: int = 64,
        dim_codebook: int = 32,
        *,
        shape: str = "cifar",
        channels: int = 3,
        codebook_flavor: str = "classic",
        codebook_options: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__()
        if shape not in _SHAPES:
            raise ValueError(f"VQVAE: shape must be one of {', '.join(_SHAPES)}, got {shape!r}")
        if not isinstance(channels, int) or channels < 1:
            raise ValueError(f"VQVAE: channels must be an integer >= 1, got {channels!r}")
        options = dict(codebook_options or {})
        self.config: dict[str, Any] = {
            **{"num_codebook": num_codebook, "dim_codebook": dim_codebook, "shape": shape},
            **{"channels": channels, "codebook_flavor": codebook_flavor, "codebook_options": options},
        }
        down, strides, up, widening, self.image_size = _SHAPES[shape]
        self.codebook = make_codebook(codebook_flavor, num_codebook, dim_codebook, **options)
        self.encode = encoder(channels, [*down, dim_codebook], strides)
        self.decode = decoder([dim_codebook, *up], channels, widening)
        self.reduction = 2 ** strides.count(2)

    @property
    def featuremap_size(self) -> tuple[int, int]:
        """(h, w): the map of codes for images of the size this shape was made for."""
        side = self.image_size // self.reduction
        return side, side

    @property
    def dtype(self) -> torch.dtype:
        """That of the weights."""
        return next(self.encode.parameters()).dtype

    def quantise(self, z_e: Tensor) -> Quantised:
        """Encoder outputs (B, D, h, w) to codes: `quantised` (B, D, h, w), `indices` (B, h, w)."""
        if z_e.dim() != 4 or z_e.shape[1] != self.config["dim_codebook"]:
            expected = f"(B, {self.config['dim_codebook']}, h, w)"
            raise ValueError(f"VQVAE: z_e must be {expected}, got {tuple(z_e.shape)}")
        found = self.codebook(z_e.permute(0, 2, 3, 1))
        return found._replace(quantised=found.quantised.permute(0, 3, 1, 2))

    def encoded(self, x: Tensor) -> Tensor:
        """Encoder outputs z_e (B, D, h, w), not quantised, of images (B, C, H, W), which may have another dtype.

        Raises:
            TypeError, ValueError: for anything but images for this network.
        """
        check_images("VQVAE", x, self.config["channels"], self.reduction)
        return self.encode(x.to(self.dtype))

    def lookup(self, indices: Tensor) -> Tensor:
        """Codes (B, D, h, w) of indices (B, h, w), (B, h, w, S) for codebooks made of S.

        Raises:
            ValueError: for another shape, or indices outside [0, K).
        """
        codes = self.codebook.lookup(indices)
        if codes.dim() != 4:
            raise ValueError(f"VQVAE: indices must be those of maps, (B, h, w), got {tuple(indices.shape)}")
        return codes.permute(0, 3, 1, 2)

    def forward(self, x: Tensor) -> Reconstruction:
        """Reconstruct images.

        Args:
            x: (B, C, H, W), height and width multiples of `reduction`.

        Raises:
            TypeError: if it is not a floating-point tensor.
            ValueError: for another shape.
        """
        codes = self.quantise(self.encoded(x))
        images = self.decode(codes.quantised)
        return Reconstruction(
            images, codes.quantised, codes.indices, codes.loss, codes.perplexity, codes.usage
        )

    def codes_across(self, image_size: int) -> int:
        """How many codes stand side by side for images of `image_size` pixels.

        Raises:
            ValueError: for a size that is not a positive multiple of `reduction`.
        """
        if image_size < 1 or image_size % self.reduction:
            raise ValueError(
                f"VQVAE: image_size must be a positive multiple of {self.reduction}, got {image_size}"
            )
        return image_size // self.reduction

    def known_codes(self, mask: Tensor) -> Tensor:
        """A mask (..., H, W) of pixels, 1 where known, to one of codes (..., h, w): the least known pixel counts.

        Only the `reduction` x `reduction` pixels under a code count. The encoder sees some further ones, so codes at
        the border of a known region depend a little on pixels beyond it.

        Raises:
            ValueError: for sizes that are not multiples of `reduction`, or when some pixels of a map are known, but
                of no code all of them: nothing of what is known would be kept.
        """
        side = self.reduction
        if mask.dim() < 2 or mask.shape[-2] % side or mask.shape[-1] % side:
            raise ValueError(
                f"VQVAE: mask must be (..., H, W) of multiples of {side}, got {tuple(mask.shape)}"
            )
        codes = reduce(mask.float(), "... (h i) (w j) -> ... h w", "min", i=side, j=side)
        some = (mask > 0).any(-1).any(-1)
        if bool((some & ~(codes > 0).any(-1).any(-1)).any()):
            raise ValueError(
                f"VQVAE: mask must mark all {side} x {side} pixels of a code at least, got only parts of codes"
            )
        return codes

    @torch.no_grad()
    def indices(self, x: Tensor) -> Tensor:
        """The indices (B, h, w) of images x (B, C, H, W)."""
        return self.quantise(self.encoded(x)).indices

    @torch.no_grad()
    def images(self, indices: Tensor) -> Tensor:
        """The images (B, C, H, W) of indices (B, h, w)."""
        return self.decode(self.lookup(indices))

    def load_original(self, state: Mapping[str, Tensor]) -> None:
        """Load a state dict of the original, which has every tensor twice, once more under `autoencoder.`.

        Raises:
            ValueError: when names or shapes do not fit.
        """
        own = {name: t for name, t in state.items() if not name.startswith("autoencoder.")}
        try:
            self.load_state_dict(own)
        except RuntimeError as error:
            raise ValueError(f"VQVAE: state must fit this shape and codebook, got: {error}") from error


class CifarVQVAE(VQVAE):
    """`VQVAE` of shape "cifar" with the original's name and arguments."""

    def __init__(self, num_codebook: int, dim_codebook: int, codebook_flavor: str = "classic") -> None:
        super().__init__(num_codebook, dim_codebook, shape="cifar", codebook_flavor=codebook_flavor)


class MiniImagenetVQVAE(VQVAE):
    """`VQVAE` of shape "mini_imagenet" with the original's name and arguments.

    The original never passes its flavor on and always builds the classic codebook; here the flavor counts, and
    "classic" is the default.
    """

    def __init__(self, num_codebook: int, dim_codebook: int, codebook_flavor: str = "classic") -> None:
        super().__init__(num_codebook, dim_codebook, shape="mini_imagenet", codebook_flavor=codebook_flavor)


def check_images(place: str, x: Tensor, channels: int, factor: int) -> None:
    """Refuse anything but images (B, channels, H, W) with sides that are multiples of `factor`.

    Raises:
        TypeError: if it is not a floating-point tensor.
        ValueError: for another shape.
    """
    if not (isinstance(x, Tensor) and x.is_floating_point()):
        got = x.dtype if isinstance(x, Tensor) else type(x).__name__
        raise TypeError(f"{place}: x must be floating point, in [-1, 1], got {got}")
    sides = x.shape[2:]
    if x.dim() != 4 or x.shape[1] != channels or any(n < 1 or n % factor for n in sides):
        expected = f"(B, {channels}, H, W), H and W multiples of {factor}"
        raise ValueError(f"{place}: x must be {expected}, got {tuple(x.shape)}")


def reconstruction_loss(out: Reconstruction, x: Tensor) -> Tensor:
    """Mean square error of the images plus the loss of the codebook, float32."""
    return functional.mse_loss(out.images.float(), x.float()) + out.loss_latent
