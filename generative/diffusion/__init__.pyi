from .config import (
    DiffusionLossConfig as DiffusionLossConfig,
)
from .config import EDMLossConfig as EDMLossConfig
from .config import (
    ImageDiffusionConfig as ImageDiffusionConfig,
)
from .config import ImageEDMConfig as ImageEDMConfig
from .config import (
    PointDiffusionConfig as PointDiffusionConfig,
)
from .config import PointEDMConfig as PointEDMConfig
from .config import (
    ScheduleConfig as ScheduleConfig,
)
from .config import (
    UNetConfig as UNetConfig,
)
from .editing import inpainting_path as inpainting_path
from .editing import noised as noised
from .edm import EDM as EDM
from .edm import Churn as Churn
from .edm import EDMLearner as EDMLearner
from .edm import EDMLosses as EDMLosses
from .edm import Preconditioned as Preconditioned
from .edm import Scalings as Scalings
from .edm import heun_path as heun_path
from .edm import rho_sigmas as rho_sigmas
from .edm import scalings as scalings
from .exact import ListDenoiser as ListDenoiser
from .exact import MixtureDenoiser as MixtureDenoiser
from .exact import SimpleLoss as SimpleLoss
from .exact import simple_loss as simple_loss
from .guidance import Guidance as Guidance
from .guidance import drop_context as drop_context
from .guidance import guided as guided
from .model import Diffusion as Diffusion
from .model import (
    DiffusionLearner as DiffusionLearner,
)
from .model import (
    DiffusionLosses as DiffusionLosses,
)
from .model import LevelLoss as LevelLoss
from .model import (
    diffusion_loss as diffusion_loss,
)
from .model import (
    estimates as estimates,
)
from .model import into_network as into_network
from .model import level_losses as level_losses
from .networks import (
    DenoisingMLP as DenoisingMLP,
)
from .samplers import (
    Clip as Clip,
)
from .samplers import (
    Denoiser as Denoiser,
)
from .samplers import (
    SamplerStep as SamplerStep,
)
from .samplers import (
    clip_data as clip_data,
)
from .samplers import (
    ddim_noise as ddim_noise,
)
from .samplers import (
    ddim_step as ddim_step,
)
from .samplers import (
    denoising_path as denoising_path,
)
from .samplers import (
    noising_path as noising_path,
)
from .samplers import (
    ode_flow as ode_flow,
)
from .samplers import (
    ode_log_prob as ode_log_prob,
)
from .samplers import (
    variational_gap as variational_gap,
)
from .schedules import (
    Schedule as Schedule,
)
from .schedules import (
    cosine_betas as cosine_betas,
)
from .schedules import (
    linear_betas as linear_betas,
)
from .schedules import (
    log_snr_of as log_snr_of,
)
from .schedules import (
    scaled_linear_betas as scaled_linear_betas,
)
from .schedules import (
    signal_and_noise as signal_and_noise,
)
